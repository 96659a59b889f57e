"""What a search cost: every training split, those that failed too, the weighing of networks, and energy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial

from flyweight.cli import run
from flyweight.report.cost import SecondsFacts
from flyweight.report.tuning import TuningFacts, render_tuning
from flyweight.runtime.energy import EnergyMeter
from flyweight.tune import conduct
from flyweight.tune.forecast import Forecast, in_words
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source
from flyweight.tune.spent import cost_of, weighing
from flyweight.tune.trials import rung_key

RATES = {"params": [{"key": "optim.lr", "choices": [0.1, 1e30], "likely": 0.1}]}  # the second diverges
SETTINGS = (
    "epochs=3",
    "data.image_size=8",
    "precision=fp32",
    "model.name=tiny_cnn_4",
    "optim.name=sgd",
    "clip_grad_norm=null",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=np.arange(200) % 2)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(RATES))
    return tmp_path / "two.npz"


@pytest.fixture
def facts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuningFacts:
    """Of a search by both rates, one of which diverges, on a machine that tells its energy."""
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text("1000000000")
    (zone / "energy_uj").write_text("0")

    class Counting(EnergyMeter):
        def joules(self) -> float | None:
            (zone / "energy_uj").write_text("5000000")
            return super().joules()

    monkeypatch.setattr(conduct, "EnergyMeter", lambda: Counting(tmp_path / "powercap"))
    sets = [word for one in SETTINGS for word in ("--set", one)]
    words = ["tune", str(data), "--recipe", "smoke", *sets, "--space", str(tmp_path / "space.yaml"), "--stop", "none"]
    words += [
        "--sampler",
        "random",
        "--trials",
        "6",
        "--budget",
        "size<10MB",
        "--jobs",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert run(words) == 0
    assert run(words) == 0  # trains nothing more
    return TuningFacts.model_validate_json((tmp_path / "out" / "report.json").read_bytes())


def test_every_training_is_counted_and_what_it_took_is_what_its_epochs_say(facts: TuningFacts, tmp_path: Path) -> None:
    cost = facts.cost
    assert cost is not None
    assert [trial.status for trial in sorted(facts.trials, key=lambda one: -one.values["optim.lr"])] == [
        "failed",
        "finished",
    ]
    assert (cost.measured_runs, cost.both_runs, cost.unsplit_runs) == (2, 1, 0)  # what failed is counted
    (result,) = [one for trial in facts.trials for one in trial.results]
    (number,) = [trial.number for trial in facts.trials if trial.results]
    history = (tmp_path / "out" / "trials" / f"{number:04d}" / "rung0" / "history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in history]
    assert result.own_seconds is not None
    assert result.own_seconds.validating == pytest.approx(sum(row["val_seconds"] for row in rows))
    assert result.own_seconds.loading == pytest.approx(sum(row["load_seconds"] for row in rows))
    assert result.own_seconds.core == pytest.approx(sum(row["core_seconds"] for row in rows))
    assert result.own_seconds == cost.both_measured
    assert cost.measured.computing > result.own_seconds.computing
    assert cost.measured.core > result.own_seconds.core
    assert min(cost.predicted.loading, cost.predicted.computing, cost.predicted.validating) > 0
    assert cost.both_predicted.validating > 0  # on both sides
    assert cost.probes_seconds > 0
    assert facts.weighed == 2
    assert facts.weighing_seconds > 0
    assert (cost.joules, cost.energy_calls) == (5.0, (1, 1))  # the call that trained nothing is no call
    page = render_tuning(facts)
    assert "Weighing the networks of 2 trials" in page
    assert "0.0 kJ" in page


@pytest.fixture
def search(data: Path, tmp_path: Path) -> Search:
    found, _ = plan_search(
        Source(str(data)), out=tmp_path / "out", recipe="smoke", settings=SETTINGS, stop="none",
        space=str(tmp_path / "space.yaml"),
    )  # fmt: skip
    return found


def trial_with(**attributes: object) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, user_attrs=attributes)


def test_what_an_earlier_version_kept_as_a_sum_is_told_apart(search: Search) -> None:
    split = {"loading": 1.0, "computing": 2.0, "validating": 3.0, "core": 5.0}
    known = {"score": 0.5, "images": 1, "seconds": 3.0, "done": 1.0}
    trials = [trial_with(**{rung_key(0): known}), trial_with(**{rung_key(0): {**known, "own_seconds": split}})]
    cost = cost_of(search, trials)
    assert (cost.unsplit_runs, cost.unsplit_seconds) == (1, 3.0)
    assert (cost.measured_runs, cost.measured) == (1, SecondsFacts(**split))
    assert (cost.predicted_runs, cost.both_runs, cost.joules) == (0, 0, None)  # nothing was predicted, nothing metered


def test_trials_that_broke_the_budget_were_weighed_too() -> None:
    assert weighing([trial_with(weighing_seconds=2.0), trial_with(weighing_seconds=0.5), trial_with()]) == (2, 2.5)


def test_a_search_on_a_gpu_costs_its_hours_and_is_another_search(search: Search) -> None:
    on_gpu = dataclasses.replace(search, device="cuda")
    dataset = search.source.load()
    assert on_gpu.facts(dataset) == {**search.facts(dataset), "device": "cuda"}
    split = {"loading": 1.0, "computing": 2.0, "validating": 3.0, "core": 5.0}
    known = {"score": 0.5, "images": 1, "seconds": 3.0, "done": 1.0, "own_seconds": split}
    cost = cost_of(on_gpu, [trial_with(**{rung_key(0): known})])
    assert (cost.unit, cost.spent(cost.measured)) == ("GPU", 6.0)
    forecast = Forecast((2,), 100, {"computing": 120.0}, {"tiny_cnn_4": 120.0}, {}, 1.0, "cuda")
    assert in_words(forecast, jobs=1)[0].startswith("predicted: 2.0 GPU-minutes for 2 trainings of 100 image passes")
