"""A search from a program: what the command does, as a function."""

from __future__ import annotations

from pathlib import Path

from flyweight.api import load_recipe, tune

SHORT = ("epochs=2", "data.image_size=12", "data.train_fraction=0.1")


def test_tune_returns_what_the_page_says_and_goes_on_when_called_again(tmp_path: Path) -> None:
    def search(trials: int) -> list[float | None]:
        facts = tune("sample", tmp_path, recipe="smoke", settings=SHORT, trials=trials, stop="none", sampler="random")
        assert facts.best is not None
        assert facts.conditions.details["search space"] == "plain"
        assert load_recipe(str(tmp_path / facts.recipe)).epochs == 2
        return [trial.score for trial in facts.trials]

    first = search(1)
    assert len(first) == 1
    assert search(2)[:1] == first
