"""The learning-rate range test: the rate rises with every step until the loss is lost; `train.range_curve` reads it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch

from flyweight.data.batches import Batch, Batches
from flyweight.data.dataset import Dataset
from flyweight.errors import RecipeError, TrainingError
from flyweight.models.weights import fitted, load_weights
from flyweight.train.loop import Stepper
from flyweight.train.prepare import prepare
from flyweight.train.range_curve import RangeTest, rates, read_range, smooth
from flyweight.train.recipe import Recipe
from flyweight.train.run import architecture_for, batches_for, check_device, default_device, resolved
from flyweight.train.stages import enter, stages

LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 200
LOST = 2.0  # times its start: a smoothed loss above that ends the test


def range_test(
    dataset: Dataset,
    recipe: Recipe,
    *,
    low: float = LOWEST,
    high: float = HIGHEST,
    steps: int = STEPS,
    device: str | None = None,
) -> Iterator[tuple[int, int] | RangeTest]:
    """Train on the recipe's own batches with a rate that rises at every step; yield (steps done, of), then the result.

    Everything is the recipe's but the rate: batches, optimizer, clipping, the weights it begins with. Nothing is
    written. It ends early where the smoothed loss is twice that of the first batch, or a loss is not finite.

    Raises:
        RecipeError: A recipe with stages, each of which has its own rate; impossible rates or too few steps.
        TrainingError: The loss of the first batch is not finite, or torch cannot use the device.
    """
    if recipe.stages:
        raise RecipeError(
            f"a range test needs a recipe without stages, and {recipe.name!r} has {len(recipe.stages)}, each with its "
            "own rate",
            do="choose another --recipe, such as default",
        )
    planned, losses, made = rates(low, high, steps), [], 0
    check_device(device)
    stepper, batches = _begun(dataset, recipe, device or default_device())
    for made, (images, targets) in enumerate(itertools.islice(_endless(batches), steps), 1):
        loss = float(stepper(images, targets, planned[made - 1]))
        if not math.isfinite(loss):
            break
        losses.append(loss)
        yield made, steps
        if smooth(losses)[-1] > LOST * losses[0]:
            break
    if not losses:
        raise TrainingError("the loss of the first batch is not finite", do="begin with other weights (model.init)")
    yield read_range(planned[:made], losses)


def _begun(dataset: Dataset, recipe: Recipe, device: str) -> tuple[Stepper, Batches]:
    """Return what makes the steps, and the batches, as the first stage of a run has them."""
    initial = load_weights(recipe.model.pretrained) if recipe.model.pretrained else None
    prepared = prepare(dataset, recipe, like=initial.architecture if initial else None)
    architecture = architecture_for(recipe, prepared, initial)
    plain = resolved(recipe.model_copy(update={"ema_decay": None}), prepared, architecture, device)
    torch.set_num_threads(plain.settled().threads)
    (stage,) = stages(plain, architecture)
    state = enter(stage, fitted(initial, architecture) if initial else None, device=device)
    return Stepper(state, plain), batches_for(prepared, plain)[0]


def _endless(batches: Batches) -> Iterator[Batch]:
    for epoch in itertools.count():
        yield from batches.epoch(epoch)
