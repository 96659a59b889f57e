"""From what a user asks for to a search that can run, with every contradiction found before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from flyweight.data.dataset import Dataset
from flyweight.errors import RecipeError
from flyweight.measure.accuracy import METRICS
from flyweight.measure.budget import Budget
from flyweight.measure.device import refuse_elsewhere
from flyweight.runtime.cores import refuse_too_many
from flyweight.runtime.environment import CPU, usable_cores
from flyweight.train.recipe import Recipe, load_recipe
from flyweight.train.run import check_device
from flyweight.tune.brackets import plan_brackets
from flyweight.tune.earlier import begun_from
from flyweight.tune.fidelity import Shrinks, plan_ladder
from flyweight.tune.search import (
    Search,
    Source,
    check_objectives,
    image_size_of,
    refuse_impossible,
    train_images,
)
from flyweight.tune.space import Param, Space, Value, load_space, space_for
from flyweight.tune.suggest import grid_of, make_sampler

LEAST_A_CLASS = 20  # training images that the shortest rung keeps


def plan_search(
    source: Source,
    *,
    out: Path,
    recipe: str = "default",
    settings: Sequence[str] = (),
    space: str | None = None,
    trials: int = 40,
    margin: float | None = None,
    budget: str = "",
    objectives: Sequence[str] = (),
    sampler: str = "tpe",
    stop: str = "halving",
    rungs: int = 3,
    eta: float = 3.0,
    shrinks: Sequence[str] = ("epochs", "data"),
    begin: Sequence[str] = (),
    threads: int = 1,
    storage: str | None = None,
    name: str = "tune",
    seed: int = 0,
    device: str = CPU,
) -> tuple[Search, Dataset]:
    """Return the search and its images.

    Args:
        space: A shipped search space or a YAML file; None: the one for the recipe's network.
        device: What trains, as torch names it.

    Raises:
        DataError: The images cannot be read.
        RecipeError: A recipe, space, sampler, objective or rung that is unknown or impossible.
        BudgetError: A budget that cannot be read, or contradicts itself; latencies with more threads than cores.
        TrainingError: torch cannot use the device.
    """
    base = load_recipe(recipe).with_settings(settings)
    if base.stages:
        raise RecipeError(
            f"the recipe {base.name!r} has stages, and a search shortens one training",
            do="tune a recipe without stages; what comes after (int8, unfreezing) begins with its result: --from RUN",
            more="docs/tuning.md#rungs",
        )
    chosen = _with_own_values(load_space(space or space_for(base.model.name)), base)
    chosen.check(base)
    make_sampler(sampler, chosen, seed)
    check_device(device)
    if sampler == "grid":
        grid_of(chosen)
    named = [name for name in objectives if name in METRICS]
    parsed = Budget.parse(budget, maximize=named[0] if named else None)
    refuse_impossible(parsed)
    refuse_elsewhere(parsed, "tune")
    metric, costs = check_objectives(objectives, parsed)
    if margin is not None and costs:
        raise RecipeError("--margin with several objectives", do="leave out --margin, or the costs of --objective")
    unknown = sorted(set(shrinks) - set(get_args(Shrinks)))
    if unknown:
        raise RecipeError(f"--shrink {unknown[0]!r}", do=f"choose of {', '.join(get_args(Shrinks))}")
    dataset = source.load()
    length = plan_ladder(
        base.epochs,
        train_images(dataset, base),
        rungs=1 if stop == "none" else rungs,
        eta=eta,
        shrinks=[shrink for shrink in get_args(Shrinks) if shrink in shrinks],
        image_size=image_size_of(dataset, base),
        least_images=LEAST_A_CLASS * len(dataset.classes),
    )
    search = Search(
        source=source,
        recipe=base,
        space=chosen,
        ladder=length,
        shapes=plan_brackets(stop, len(length), eta),
        sampler=sampler,
        metric=metric,
        costs=costs,
        budget=parsed,
        queue=tuple(_queue(chosen, base, begin)),
        trials=trials,
        margin=margin,
        seed=seed,
        threads=threads,
        storage=storage or f"sqlite:///{out / 'study.db'}",
        name=name,
        out=out,
        device=device,
    )
    if search.times:
        refuse_too_many(threads, usable_cores())
    return search, dataset


def _with_own_values(space: Space, recipe: Recipe) -> Space:
    """Return the space with the recipe's own values as likely ones, where it names none and they lie inside."""
    own = space.values_of(recipe) or {}

    def likely(param: Param) -> Param:
        value = own.get(param.key)
        if param.likely is not None or not param.holds(value) or not param.active(own):
            return param
        return param.model_copy(update={"likely": value})

    return space.model_copy(update={"params": tuple(likely(param) for param in space.params)})


def _queue(space: Space, base: Recipe, begin: Sequence[str]) -> list[Mapping[str, Value]]:
    """Return what is tried first: the recipe as it stands, then those that the user names, each once.

    Raises:
        RecipeError: One that was named cannot be read, or nothing of it lies inside the space.
    """
    found: list[Mapping[str, Value]] = []
    own = space.values_of(base)
    if own is not None and not space.scientific:
        found.append(own)
    for named in begin:
        found += begun_from(named, space)
    unique: list[Mapping[str, Value]] = []
    for values in found:
        if values not in unique:
            unique.append(values)
    return unique
