"""What a search begins with: recipes, and the best of earlier searches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from flyweight.errors import RecipeError
from flyweight.report.tuning import TuningFacts
from flyweight.train.recipe import Recipe, load_recipe
from flyweight.tune.space import Space, Value
from flyweight.tune.trials import RECIPE, recipe_file

BEST = 3  # of an earlier search
MORE = "docs/tuning.md#beginning-with-what-is-known"


def begun_from(named: str, space: Space) -> list[Mapping[str, Value]]:
    """Return the values that a recipe has in the space, or those of the best recipes of an earlier search, best first.

    Args:
        named: A shipped recipe, a file, or the folder of a search; `FOLDER:5` for its five best.

    Raises:
        RecipeError: It cannot be read, or nothing of it lies inside the space.
    """
    folder, count = _folder_of(named)
    recipes = [load_recipe(named)] if folder is None else best_recipes(folder)
    found: list[Mapping[str, Value]] = []
    for values in map(space.values_of, recipes):
        if values is not None and values not in found:
            found.append(values)
    if not found:
        which = "the recipe lies" if folder is None else "all that it found lies"
        raise RecipeError(
            f"--begin {named}: {which} outside of the search space {space.name!r}",
            do="widen the space, or leave it out",
            more=MORE,
        )
    return found[:count]


def best_recipes(folder: Path) -> list[Recipe]:
    """Return the recipe that a search ended with, then those of its trials that were trained in full, best first.

    Trials that other machines trained, in folders of their own, are not among them. A run has its one recipe.

    Raises:
        RecipeError: The folder holds no recipe.
    """
    facts = _facts_in(folder)
    trials = [trial for trial in facts.trials if facts.in_full(trial)] if facts else []
    trials.sort(key=lambda trial: (-(trial.score or 0.0), trial.number))
    files = [recipe_file(folder, trial.number, trial.results[-1].rung) for trial in trials]
    recipes = [load_recipe(file) for file in (folder / RECIPE, *files) if file.is_file()]
    if not recipes:
        raise RecipeError(
            f"--begin {folder}: it holds no recipe, and no search that has trained anything in full",
            do="name the --out of a search, a recipe file, or a shipped recipe",
            more=MORE,
        )
    return recipes


def _folder_of(named: str) -> tuple[Path | None, int]:
    path, _, count = named.rpartition(":")
    if count.isdecimal() and int(count) > 0 and Path(path).is_dir():
        return Path(path), int(count)
    return (Path(named) if Path(named).is_dir() else None), BEST


def _facts_in(folder: Path) -> TuningFacts | None:
    try:
        return TuningFacts.model_validate_json((folder / "report.json").read_bytes())
    except (OSError, ValidationError):
        return None  # no search, or none of this version
