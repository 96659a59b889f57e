"""The benchmark of search efficiency: what it counts, what it judges on, and when a race ends."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from flyweight.train.prepare import split_for
from flyweight.tune.suggest import distribution
from flyweight.tune.trials import BRACKET, rung_key
from flyweight.tune.winners import best_first
from flyweight.tune.worker import trial_folder

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SETTINGS = (
    "model.name=tiny_cnn_4", "data.image_size=8", "data.val_fraction=0.2", "ema_decay=null", "augment.shift=0",
    "batch_size=64", "threads=1", "precision=fp32", "channels_last=true", "compile=false", "epochs=3",
)  # fmt: skip


@pytest.fixture
def searchers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import searchers

    return searchers


@pytest.fixture
def efficiency(searchers: ModuleType) -> ModuleType:
    import search_efficiency

    return search_efficiency


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 images of two classes that a mean brightness tells apart."""
    draw = np.random.default_rng(0)
    labels = np.arange(1000) % 2
    pixels = draw.integers(0, 120, (1000, 8, 8, 3)) + 90 * labels[:, None, None, None]
    file = tmp_path_factory.mktemp("data") / "two.npz"
    np.savez(file, images=pixels.astype(np.uint8), labels=labels)
    return file


@pytest.fixture
def problem(searchers: ModuleType, images: Path, tmp_path: Path) -> Any:
    return searchers.Problem(
        data=str(images), space="training", settings=SETTINGS, images=400, held_out=100, trials=2, seeds=(7, 8),
        runs=tmp_path / "runs",
    )  # fmt: skip


def test_ours_does_what_tune_does_where_nothing_is_asked_for(searchers: ModuleType) -> None:
    from flyweight.cli.tune import tune

    given = {name: one.default for name, one in inspect.signature(tune).parameters.items()}
    asked = {**searchers.DEFAULTS, "shrink": ",".join(searchers.DEFAULTS["shrinks"])}
    del asked["shrinks"]
    assert asked == {name: given[name] for name in asked}


def test_only_ours_knows_likely_values_and_all_search_the_same_space(searchers: ModuleType, problem: Any) -> None:
    plans = {arm: searchers.plan(problem, arm, 3)[0] for arm in ("ours", "ours_without_priors", "stock", "random")}
    assert plans["ours"].queue
    assert all(param.likely is not None for param in plans["ours"].space.params)
    for arm in ("ours_without_priors", "stock", "random"):
        assert plans[arm].queue == ()
        assert all(param.likely is None for param in plans[arm].space.params)
    bare = {"likely"}
    spaces = [[param.model_dump(exclude=bare) for param in search.space.params] for search in plans.values()]
    assert all(space == spaces[0] for space in spaces)
    assert len({str(search.recipe) for search in plans.values()}) == 1
    assert {search.ladder[-1].images for search in plans.values()} == {1200}
    assert len(plans["random"].ladder) == 1
    assert all(search.seed == 3 for search in plans.values())


def test_held_out_images_are_of_the_training_part_and_no_search_sees_them(searchers: ModuleType, problem: Any) -> None:
    search, dataset = searchers.plan(problem, "ours", 0)
    chosen = searchers.held_out_images(problem, dataset)
    assert len(chosen) == 100
    assert np.bincount(dataset.labels[chosen]).tolist() == [50, 50]
    parts = split_for(dataset, search.recipe.data)
    assert len(parts.train) == 400
    assert not set(chosen) & {*parts.train, *parts.val, *parts.test}


def trial(search: Any, number: int, state: TrialState, **attributes: Any) -> Any:
    """Return a trial of Adam with a rate of its own."""
    values = {"optim.name": "adamw", "optim.lr": 0.001 * (number + 1), "batch_size": 64}
    params = [param for param in search.space.params if param.key in values and param.active(values)]
    made = create_trial(
        state=state,
        value=attributes.pop("value", 0.0) if state is TrialState.COMPLETE else None,
        params={param.name: values[param.key] for param in params},
        distributions={param.name: distribution(param) for param in params},
        user_attrs={BRACKET: 0, **attributes},
    )
    made.number = number
    return made


def result(score: float, images: int, done: float) -> dict[str, float]:
    return {"score": score, "val_accuracy": score, "images": images, "seconds": 1.0, "done": done}


def test_every_rung_and_every_begun_epoch_of_a_diverged_training_is_counted(
    searchers: ModuleType, problem: Any
) -> None:
    search, _ = searchers.plan(problem, "ours", 0)
    rungs = [rung.images for rung in search.ladder]
    assert len(rungs) == 3
    trials = [
        trial(search, 0, TrialState.RUNNING, **{rung_key(0): result(0.9, rungs[0], 10.0)}),
        trial(search, 1, TrialState.FAIL),
        trial(search, 2, TrialState.RUNNING, **{rung_key(r): result(0.8, rungs[r], 11.0 + r) for r in range(3)}),
        trial(search, 3, TrialState.RUNNING, **{rung_key(2): result(0.7, rungs[2], 20.0)}),
        trial(search, 4, TrialState.RUNNING, **{rung_key(2): result(0.85, rungs[2], 30.0)}),
    ]
    lost = trial_folder(search, 1) / "rung0" / "diverged.json"
    lost.parent.mkdir(parents=True)
    lost.write_text(json.dumps({"epoch": 2}))
    os.utime(lost, (10.5, 10.5))
    passes, incumbents = searchers.state_of(search, trials)
    diverged = 2 * rungs[0] // search.ladder[0].epochs
    assert passes == 2 * rungs[0] + rungs[1] + 3 * rungs[2] + diverged
    assert [one.number for one in incumbents] == [2, 4]
    assert incumbents[0].passes == 2 * rungs[0] + rungs[1] + diverged  # before its full training
    assert incumbents[1].passes == passes
    assert incumbents[0].values == {"optim.name": "adamw", "optim.lr": 0.003, "batch_size": 64}


def test_an_incumbent_is_what_the_search_would_hand_out(searchers: ModuleType, problem: Any) -> None:
    """Before the first full training the best expected; then the best of those trained in full."""
    search, _ = searchers.plan(problem, "ours", 0)
    by_rung = ((0.5, 0.6), (0.5, 0.65, 0.7), (0.9, 0.95), (0.5, 0.6, 0.72))
    trials = [
        trial(
            search, number, TrialState.RUNNING,
            **{rung_key(rung): result(score, 1, 10.0 * number + rung) for rung, score in enumerate(scores)},
        )
        for number, scores in enumerate(by_rung)
    ]  # fmt: skip
    _, incumbents = searchers.state_of(search, trials)
    assert [(one.number, one.passes) for one in incumbents] == [(0, 2), (1, 4), (3, 10)]
    assert best_first(search, trials)[0].number == 3
    assert incumbents[-1].score == pytest.approx(0.72)


def test_only_the_whole_run_of_the_claim_is_written_down(
    efficiency: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*words: str) -> bool:
        monkeypatch.setattr("sys.argv", ["search_efficiency.py", *words])
        return bool(efficiency.as_claimed(efficiency._options()))

    assert asked()
    assert asked("--jobs", "1")
    for words in (
        ("--first-seed", "100"), ("--repetitions", "4"), ("--arms", "ours,random"), ("--space", "augment"),
        ("--set", "optim.lr=0.1"), ("--epochs", "19"), ("--data", "sample"),
    ):  # fmt: skip
        assert not asked(*words), words


def test_a_stock_trial_that_goes_on_after_its_last_epoch_keeps_its_accuracy(
    searchers: ModuleType, problem: Any
) -> None:
    import optuna

    search, dataset = searchers.plan(problem, "stock", 0)
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    first = study.ask()
    found = searchers._trained(search, dataset, first)
    assert found[0] is TrialState.COMPLETE
    again = optuna.Trial(study, first._trial_id)
    assert searchers._trained(search, dataset, again) == found
    assert again.user_attrs["passes"] == search.ladder[search.full].images


def test_each_repetition_of_stock_optuna_has_brackets_of_its_own(searchers: ModuleType, problem: Any) -> None:
    import optuna

    def brackets(repetition: int) -> list[int]:
        search, dataset = searchers.plan(problem, "stock", repetition)
        next(searchers.stock(search, dataset))  # the study is made before anything is trained
        storage = f"sqlite:///{search.out / 'study.db'}"
        (name,) = optuna.get_all_study_names(storage)
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=20, reduction_factor=3)
        study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        pruner._try_initialization(study)
        return [pruner._get_bracket_id(study, trial(search, number, TrialState.RUNNING)) for number in range(18)]

    found = [brackets(repetition) for repetition in range(5)]
    assert all(len(set(one)) > 1 for one in found)
    assert len({tuple(one) for one in found}) == 5


def test_a_stock_study_of_another_version_is_refused(searchers: ModuleType, problem: Any) -> None:
    import optuna

    search, dataset = searchers.plan(problem, "stock", 0)
    search.out.mkdir(parents=True)
    optuna.create_study(storage=f"sqlite:///{search.out / 'study.db'}", study_name="search")
    with pytest.raises(SystemExit, match="holds the study search, of another version"):
        next(searchers.stock(search, dataset))


def test_pruned_and_failed_trials_of_stock_optuna_are_counted_too(searchers: ModuleType, problem: Any) -> None:
    search, _ = searchers.plan(problem, "stock", 0)
    trials = [
        trial(search, 0, TrialState.PRUNED, passes=400),
        trial(search, 1, TrialState.COMPLETE, passes=1200, value=0.5),
        trial(search, 2, TrialState.FAIL, passes=800),
        trial(search, 3, TrialState.COMPLETE, passes=1200, value=0.4),
        trial(search, 4, TrialState.COMPLETE, passes=1200, value=0.6),
    ]
    passes, incumbents = searchers.stock_state(search, trials)
    assert passes == 4800
    assert [(one.number, one.passes) for one in incumbents] == [(1, 1600), (4, 4800)]


def states(searchers: ModuleType, *scores: float) -> Iterator[Any]:
    """Yield a search whose every training is a new incumbent."""
    found: list[Any] = []
    for number, score in enumerate(scores):
        found.append(searchers.Incumbent(number, 100 * (number + 1), score, {"score": score}))
        yield found[-1].passes, list(found)


def test_a_race_ends_with_the_first_incumbent_that_is_retrained_as_well_as_the_target(searchers: ModuleType) -> None:
    asked: list[float] = []

    def judged(values: dict[str, float]) -> list[float]:
        asked.append(values["score"])
        return [values["score"] - 0.1, values["score"] + 0.1]

    found = searchers.race(states(searchers, 0.5, 0.6, 0.7, 0.8), judged, target=0.65, limit=1000)
    assert (found["reached"], found["passes"]) == (True, 300)
    assert asked == [0.5, 0.6, 0.7]
    assert found["checks"][0]["retrained"] == pytest.approx([0.4, 0.6])


def test_a_race_that_never_reaches_the_target_ends_at_the_limit_and_says_so(searchers: ModuleType) -> None:
    found = searchers.race(
        states(searchers, 0.5, 0.6, 0.7, 0.8), lambda values: [values["score"]], target=0.9, limit=300
    )
    assert (found["reached"], found["passes"], len(found["checks"])) == (False, 300, 3)


def test_a_ratio_that_was_not_reached_stays_in_the_median(efficiency: ModuleType) -> None:
    rows = [{"arm": "ours", "ratio": ratio, "reached": ratio < 1} for ratio in (0.1, 1.02, 0.2)]
    found = efficiency.ratios(rows, "ours")
    assert (found.value, found.low, found.high, found.n) == (0.2, 0.1, 1.02, 3)
    more = {"repetition": 0, "target": 0.9, "passes": 100, "checks": []}
    assert "> 1.020" in efficiency.markdown([{**more, **row} for row in rows])


def test_a_repetition_is_run_and_then_read_back(
    searchers: ModuleType, efficiency: ModuleType, problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = efficiency.target_of(problem, 0)
    assert goal["target"] == statistics.mean(goal["retrained"])
    assert len(goal["retrained"]) == 2
    assert goal["passes"] <= 2 * 1200
    stock = searchers.plan(problem, "stock", 0)
    first = next(one for one in searchers.stock(*stock) if one[0])
    again = next(searchers.stock(*stock))  # what another process finds
    assert again == first
    found = efficiency.race_of(dataclasses.replace(problem), 0, "stock", [0])
    assert found["checks"]
    monkeypatch.setattr(efficiency, "race", None)
    monkeypatch.setattr(efficiency, "tuned", None)
    assert efficiency.race_of(problem, 0, "stock", [0]) == found
    assert efficiency.row_of(problem, 0, "stock", [0])["ratio"] == found["passes"] / goal["passes"]


def test_the_claim_is_the_median_of_ours_and_every_row_is_kept(
    efficiency: ModuleType, problem: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency, "write_results", partial(efficiency.write_results, folder=tmp_path))
    monkeypatch.setattr(efficiency, "target_of", lambda problem, number: {"target": 0.9, "number": number})
    rows = [
        {"repetition": number, "arm": arm, "ratio": ratio, "reached": ratio < 1}
        for arm, three in (("ours", (0.1, 0.2, 1.1)), ("stock", (0.5, 1.2, 1.3)))
        for number, ratio in enumerate(three)
    ]
    options = argparse.Namespace(repetitions=3, first_seed=0, arms=("ours", "stock"))
    efficiency._claim_folder(problem)
    content = json.loads(efficiency._write(problem, rows, options).read_text())
    (claim,) = content["claims"]
    assert (claim["name"], claim["value"], claim["low"], claim["high"]) == ("passes_vs_random", 0.2, 0.1, 1.1)
    assert content["details"]["not_reached"] == {"ours": 1, "stock": 2}
    assert content["details"]["medians"]["stock"]["value"] == 1.2
    assert content["details"]["rows"] == rows


def test_trainings_by_other_code_are_not_mixed_and_older_ones_are_said_to_be_unknown(
    efficiency: ModuleType, problem: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    efficiency._claim_folder(problem)
    efficiency._claim_folder(problem)
    file = problem.runs / "problem.json"
    there = json.loads(file.read_text())
    assert efficiency.code_of(problem) == there["code"]
    file.write_text(json.dumps({**there, "code": {**there["code"], "version of optuna": "1.0"}}))
    with pytest.raises(SystemExit, match=r"trainings by other code \(version of optuna\)"):
        efficiency._claim_folder(problem)
    del there["code"]
    file.write_text(json.dumps(there))
    efficiency._claim_folder(problem)
    assert "it is not known" in capsys.readouterr().err
    assert efficiency.code_of(problem) == "not known"
