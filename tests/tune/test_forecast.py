"""What a search will cost is said before anything is trained, kept, and set beside what it took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from flyweight.cli import run
from flyweight.report.tuning import TuningFacts, render_tuning
from flyweight.train.pace import SECONDS, Pace, Pacer
from flyweight.tune.forecast import PREDICTED, foresee, in_words, predicted_seconds
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source

SPACE = {
    "params": [
        {"key": "model.name", "choices": ["tiny_cnn_4", "tiny_cnn_8"], "likely": "tiny_cnn_8"},
        {"key": "optim.lr", "low": 0.01, "high": 1.0, "log": True, "likely": 0.1},
        {"key": "batch_size", "choices": [25, 50], "likely": 50},
    ]
}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command of a search of two rungs over 400 images."""
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=np.arange(400) % 2)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    sets = [
        "--set",
        "epochs=4",
        "--set",
        "data.image_size=8",
        "--set",
        "precision=fp32",
        "--rungs",
        "2",
        "--trials",
        "4",
    ]
    words = ["tune", str(tmp_path / "two.npz"), "--recipe", "smoke", *sets, "--space", str(tmp_path / "space.yaml")]
    return [*words, "--jobs", "1", "--out", str(tmp_path / "out")]


def planned(folder: Path, trials: int = 4) -> tuple[Search, object]:
    settings = ("epochs=4", "data.image_size=8", "precision=fp32")
    return plan_search(
        Source(str(folder / "two.npz")), out=folder / "out", recipe="smoke", settings=settings, rungs=2, trials=trials,
        space=str(folder / "space.yaml"),
    )  # fmt: skip


def test_the_seconds_of_a_search_are_those_of_its_images_steps_and_answers(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image takes 2 ms forward and backward, 1 ms forward, a step 50 ms, a 100th of a ms to load; 8: twice that."""

    def pace(pacer: Pacer, leg: object, prepared: object) -> Pace:
        wide = 2 if leg.stage.architecture.name == "tiny_cnn_8" else 1  # type: ignore[attr-defined]
        return Pace(passes=0.002 * wide, answer=0.001 * wide, step=0.05 * wide)

    monkeypatch.setattr(Pacer, "_pace", pace)
    monkeypatch.setattr(Pacer, "_load", lambda *_: 0.00001)
    search, dataset = planned(tmp_path)
    found = foresee(search, dataset)  # type: ignore[arg-type]
    assert found.trainings == (4, 2)  # three and the best of them, one and itself
    short, full = search.ladder
    assert found.images == 4 * short.images + 2 * full.images
    assert found.seconds["loading"] == pytest.approx(found.images * 0.00001, rel=0.01)
    assert found.seconds["computing"] == pytest.approx(1.5 * found.images * (0.002 + 0.05 / 50), rel=0.01)
    assert found.networks["tiny_cnn_8"] > 1.9 * found.networks["tiny_cnn_4"]
    assert found.total == pytest.approx(predicted_seconds(search))
    more, _ = planned(tmp_path, trials=8)
    assert (
        1.5 * found.total < (predicted_seconds(more) or 0.0) < 2 * found.total
    )  # 8 short and 3 full, nothing timed again
    assert "2 at a time" in in_words(found, 2)[1]
    assert "(all tiny_cnn_4)" in in_words(found, 2)[2]


def test_predict_prints_the_cost_and_trains_nothing_and_a_search_says_it_first(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--predict"]) == 0
    printed = capsys.readouterr().out
    assert "core-minutes for 6 trainings" in printed
    assert not (tmp_path / "out" / "trials").exists()
    kept = (tmp_path / "out" / PREDICTED).read_text()
    assert run([*words, "--predict", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (tmp_path / "out" / PREDICTED).read_text() == kept  # nothing was timed again
    assert run([*words, "--predict", "--json", "--set", "epochs=8"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] > 1.9 * found["images"]
    assert run([*words, "--predict", "--json"]) == 0
    found, kept = json.loads(capsys.readouterr().out), (tmp_path / "out" / PREDICTED).read_text()
    assert min(found["seconds"][key] for key in SECONDS) > 0
    assert run(words) == 0
    said = capsys.readouterr()
    assert "core-minutes for 6 trainings" in said.err  # above the bars
    assert "took: 6 trainings" in said.out
    assert "predicted of 6 of them: " in said.out
    assert (tmp_path / "out" / PREDICTED).read_text() == kept  # nothing was timed again
    facts = TuningFacts.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert facts.predicted_seconds == pytest.approx(sum(found["seconds"].values()))
    page = render_tuning(facts)
    assert all(row in page for row in ("predicted, all trials", "of runs with both: measured"))


def test_a_network_that_cannot_be_built_is_said_and_the_others_are_predicted(words: list[str], tmp_path: Path) -> None:
    space = {"params": [{"key": "model.name", "choices": ["tiny_cnn_4", "no_such_network"]}, SPACE["params"][1]]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    search, dataset = planned(tmp_path)
    found = foresee(search, dataset)  # type: ignore[arg-type]
    assert list(found.networks) == ["tiny_cnn_4"]
    assert "no_such_network" in found.unknown
    assert any("not predicted: no_such_network" in line for line in in_words(found, 1))
