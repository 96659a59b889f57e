"""What a search begins with: recipes, and the best of earlier searches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from flyweight.errors import RecipeError
from flyweight.report.tuning import TrialFacts, TuningFacts
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
    recipes = [load_recipe(named)] if folder is None else best_recipes(folder, count)
    found = [values for values in map(space.values_of, recipes) if values is not None]
    if not found:
        which = "the recipe lies" if len(recipes) == 1 else f"its {len(recipes)} best recipes lie"
        raise RecipeError(
            f"--begin {named}: {which} outside of the search space {space.name!r}",
            do="widen the space, or leave it out",
            more=MORE,
        )
    return list(found)


def best_recipes(folder: Path, count: int = BEST) -> list[Recipe]:
    """Return the recipes, at full length, of the trials of a search that are best among those trained in full.

    Where these were trained in folders of other machines, it is the one recipe that the search ended with; so it is for
    a folder that holds no search but a run.

    Raises:
        RecipeError: The folder holds no recipe.
    """
    facts = _facts_in(folder)
    trials = [trial for trial in facts.trials if _full(facts, trial)] if facts else []
    trials.sort(key=lambda trial: (-(trial.score or 0.0), trial.number))
    files = [recipe_file(folder, trial.number, trial.results[-1].rung) for trial in trials]
    recipes = [load_recipe(file) for file in files if file.is_file()]
    if not recipes and (folder / RECIPE).is_file():
        recipes = [load_recipe(folder / RECIPE)]
    if not recipes:
        raise RecipeError(
            f"--begin {folder}: it holds no recipe, and no search that has trained anything in full",
            do="name the --out of a search, a recipe file, or a shipped recipe",
            more=MORE,
        )
    return recipes[:count]


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


def _full(facts: TuningFacts, trial: TrialFacts) -> bool:
    return bool(trial.results) and trial.results[-1].rung == len(facts.rungs) - 1
