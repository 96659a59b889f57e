"""A map over learning rate × batch size, for each optimizer, as a study on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

from flyweight.errors import RecipeError
from flyweight.studies.compared import base_of, data_sets
from flyweight.studies.study import Arm, Scale, Study, Subset, Trial, recipe_of
from flyweight.train.optim import make_optimizer
from flyweight.train.recipe import Recipe


def stability(
    data: str,
    recipe: Recipe,
    *,
    lrs: Sequence[float],
    batch_sizes: Sequence[int],
    optims: Sequence[str],
    seeds: int,
    small: Subset | None = None,
    quarantine: Path | None = None,
) -> Study:
    """Return the study whose arms are every learning rate with every batch size and optimizer.

    All pass over the training images equally often, whatever their batch size, and so make unequally many steps. The
    recipe says everything else; `betas` and `eps` only for its own optimizer. Nothing opens the test part.

    Args:
        small: The part of the data set that is used; None: the whole.
        quarantine: File that names images to leave out.

    Raises:
        RecipeError: One cell alone, no seed, an impossible rate or batch size, an optimizer that does not exist, or a
            recipe with stages, each of which has its own rate.
    """
    if recipe.stages:
        raise RecipeError(
            f"a map over learning rates needs a recipe without stages, and {recipe.name!r} has {len(recipe.stages)}, "
            "each with its own rate",
            do="choose another --recipe, such as default",
        )
    cells = list(dict.fromkeys(product(optims, sorted(lrs), sorted(batch_sizes))))
    if len(cells) < 2:
        raise RecipeError(f"a map needs two cells, found {len(cells)}", do="give several --lr or --batch-size")
    if seeds < 1:
        raise RecipeError(f"{seeds} seeds", do="choose one or more")
    datasets, subsets = data_sets([data], [small or Subset()], quarantine)
    study = Study(
        name="stability",
        title=f"{recipe.model.name} on {', '.join(facts.title for facts in datasets.values())}: "
        "learning rate × batch size",
        part="val",
        stability=True,
        reference=_name(*cells[0]),
        about=f"The recipe {recipe.name!r}, {recipe.epochs} epochs for every batch size, {seeds} "
        f"time{'s' * (seeds > 1)} a cell; a run that diverges is stopped and counted.",
        scales={"own": Scale(seeds=seeds, subsets=subsets)},
        datasets=datasets,
        base=base_of(recipe),
        arms={_name(*cell): _arm(recipe, *cell) for cell in cells},
    )
    for arm in study.arms:
        found = recipe_of(study, study.scales["own"], Trial(0, next(iter(datasets)), arm))
        make_optimizer(torch.nn.Linear(2, 2), found.optim)
    return study


def _name(optim: str, lr: float, batch_size: int) -> str:
    return f"{optim}-lr{lr}-b{batch_size}"


def _arm(recipe: Recipe, optim: str, lr: float, batch_size: int) -> Arm:
    own = {} if optim == recipe.optim.name else {"betas": None, "eps": None}
    return Arm(
        title=f"{optim}, rate {lr:g}, batch {batch_size}",
        group=optim,
        recipe={"optim": {"name": optim, "lr": lr, **own}, "batch_size": batch_size},
    )
