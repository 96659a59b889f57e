"""What a search begins with: the recipe that an earlier one ended with, then the best that it trained in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight.errors import RecipeError
from flyweight.report.facts import Conditions
from flyweight.report.tuning import RungFacts, RungResult, TrialFacts, TuningFacts
from flyweight.train.recipe import Recipe
from flyweight.tune.earlier import begun_from
from flyweight.tune.space import Space

RATES = Space.model_validate({"params": [{"key": "optim.lr", "low": 0.01, "high": 1.0, "log": True}]})
TRIED = ((0.1, 0.5), (0.2, 0.9), (5.0, 0.95), (0.3, 0.7), (0.4, None), (0.5, 0.6))  # rate, score in full


def result(rung: int, score: float) -> RungResult:
    return RungResult(rung=rung, score=score, images=10 + 20 * rung, seconds=1.0, done=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A search of two rungs that ended with trial 4, which was not trained in full."""
    trials = []
    for number, (rate, score) in enumerate(TRIED):
        results = (result(0, 0.4), *([] if score is None else [result(1, score)]))
        trials.append(TrialFacts(number=number, values={"optim.lr": rate}, status="finished", results=results))
        for one in results:
            recipe = Recipe(epochs=1 + 2 * one.rung).with_settings([f"optim.lr={rate}"])
            recipe.save(tmp_path / "trials" / f"{number:04d}" / f"rung{one.rung}" / "recipe.yaml")
    Recipe(epochs=3).with_settings(["optim.lr=0.4"]).save(tmp_path / "recipe.yaml")
    facts = TuningFacts(
        title="t", data="d", objectives=("accuracy",), params=(), trials=tuple(trials), best=4, image_passes=1,
        rungs=(RungFacts(epochs=1, share=1.0, images=10), RungFacts(epochs=3, share=1.0, images=30)),
        full_passes=30, train_seconds=1.0,
        conditions=Conditions(
            machine="m", os="o", cores=1, memory_bytes=1, versions={}, seeds=(0,), data_fingerprint="x", command="c",
            date="2026-01-01", details={},
        ),
    )  # fmt: skip
    (tmp_path / "report.json").write_text(facts.model_dump_json())
    return tmp_path


def rates(named: str) -> list[float]:
    return [float(values["optim.lr"]) for values in begun_from(named, RATES)]


def test_an_earlier_search_gives_its_answer_then_its_best_in_full_as_many_as_are_asked_for(folder: Path) -> None:
    assert rates(str(folder)) == [0.4, 0.2, 0.3]  # 5.0 lies outside
    assert rates(f"{folder}:1") == [0.4]
    assert rates(f"{folder}:9") == [0.4, 0.2, 0.3, 0.5, 0.1]


def test_a_recipe_is_begun_from_by_name_or_file_and_a_run_by_its_folder(folder: Path) -> None:
    assert rates("default") == [0.1]
    assert rates(str(folder / "trials" / "0001" / "rung0" / "recipe.yaml")) == [0.2]
    (folder / "report.json").unlink()
    assert rates(str(folder)) == [0.4]


def test_what_gives_nothing_is_an_error(folder: Path) -> None:
    with pytest.raises(RecipeError, match="the recipe lies outside of the search space 'custom'"):
        rates(str(folder / "trials" / "0002" / "rung1" / "recipe.yaml"))
    narrow = Space.model_validate({"params": [{"key": "optim.lr", "low": 2.0, "high": 3.0}]})
    with pytest.raises(RecipeError, match="all that it found lies outside"):
        begun_from(str(folder), narrow)
    (folder / "report.json").unlink()
    (folder / "recipe.yaml").unlink()
    with pytest.raises(RecipeError, match="it holds no recipe"):
        rates(str(folder))
