"""What the curve of a learning-rate range test says. Imports no torch.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv:1506.01186), section 3.3.
Changed: the rate rises exponentially, and the smoothed loss is read in place of the accuracy (fastai's `lr_find`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flyweight.errors import RecipeError

SMOOTHING = 0.9  # weight of the past in the running mean of the loss
BELOW = 10.0  # the suggested rate is that of the lowest loss divided by this
LEAST_STEPS = 20


@dataclass(frozen=True)
class RangeTest:
    """What a range test found. Rates are values of `optim.lr`; None where the curve does not say.

    Attributes:
        lrs: The rate of each step, rising; the last step's loss is missing where it was not finite.
        losses: Training loss of each step's batch, before the step.
        smoothed: Their running mean, divided by the weight it has had so far.
        steepest: Rate at which the smoothed loss falls fastest with the logarithm of the rate.
        lowest: Rate of the lowest smoothed loss.
        diverges: First rate above that with a smoothed loss above its start, or one that is not finite.
        suggested: A tenth of `lowest`.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float | None
    lowest: float | None
    diverges: float | None
    suggested: float | None


def rates(low: float, high: float, steps: int) -> list[float]:
    """Return the rate of each step: each the same factor above the one before.

    Raises:
        RecipeError: The highest is not above the lowest, the lowest not above zero, or there are too few steps.
    """
    if not 0.0 < low < high or steps < LEAST_STEPS:
        raise RecipeError(
            f"a range test from rate {low:g} to {high:g} in {steps} steps",
            do=f"choose a lowest rate above 0, a highest above it, and {LEAST_STEPS} steps or more",
        )
    return [float(lr) for lr in np.geomspace(low, high, steps)]


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential running mean of losses, divided by the weight it has had so far."""
    found, mean = [], 0.0
    for count, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**count))
    return found


def read_range(lrs: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Return what the curve says.

    Args:
        lrs: Rates of the steps made, rising.
        losses: Of each; one fewer where the last was not finite.
    """
    smoothed = smooth(losses)
    least = min(range(len(smoothed)), key=smoothed.__getitem__)
    steepest = None
    if least > 0:
        slopes = np.gradient(smoothed[: least + 1], np.log(lrs[: least + 1]))
        steepest = lrs[int(slopes.argmin())]
    lost = [lr for lr, loss in zip(lrs, smoothed, strict=False) if loss > smoothed[0] and lr > lrs[least]]
    lost += lrs[len(losses) :]
    return RangeTest(
        lrs=tuple(lrs),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        steepest=steepest,
        lowest=lrs[least] if least > 0 else None,
        diverges=lost[0] if lost else None,
        suggested=lrs[least] / BELOW if least > 0 else None,
    )
