"""Where larger batches stop paying: saturation, and the knee of the curve of throughput."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

WITHIN = 0.05  # of the best throughput: saturated


def saturation(batches: Sequence[int], rates: Sequence[float], within: float = WITHIN) -> int:
    """Return the smallest batch whose throughput is within a share of the best one."""
    enough = (1 - within) * max(rates)
    return min(batch for batch, rate in zip(batches, rates, strict=True) if rate >= enough)


def knee(x: Sequence[float], y: Sequence[float], sensitivity: float = 1.0) -> float | None:
    """Return the x of the first knee of a growing curve that bends down; None where it has none.

    Both axes are scaled to 0..1. The knee is where the curve is highest above the diagonal, provided that it then falls
    back towards it by more than `sensitivity` mean steps of x. It belongs to the range that was measured: on a longer
    one the knee of the same curve lies further right.

    Args:
        x: Growing.

    Source: Satopää, Albrecht, Irwin & Raghavan 2011, "Finding a 'Kneedle' in a Haystack", section III.
    Changed: the points are not smoothed: a sweep has a dozen, each the median of many runs.
    """
    if len(x) < 3 or max(y) <= min(y):
        return None
    along, up = _scaled(x), _scaled(y)
    above = up - along
    step = float(np.mean(np.diff(along)))
    peaks = [i for i in range(1, len(x) - 1) if above[i - 1] < above[i] >= above[i + 1]]
    for peak, following in pairwise([*peaks, len(x)]):
        if above[peak + 1 : following].min() < above[peak] - sensitivity * step:
            return x[peak]
    return None


def _scaled(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    scaled: np.ndarray = (array - array.min()) / (array.max() - array.min())
    return scaled
