"""Do two experiments put the same things in the same order?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flyweight.measure.statistics import Interval

RESAMPLES = 2000


def kendall_tau_b(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Kendall's tau-b of the last axis: 1 the same order, -1 the reverse; NaN where either has no order.

    Args:
        first: Values (..., A) of A things.
        second: The same things' values (..., A) in the other experiment.

    Source: Kendall 1945, "The treatment of ties in ranking problems".
    """
    pairs = np.triu_indices(first.shape[-1], k=1)
    one, two = (np.sign(values[..., pairs[0]] - values[..., pairs[1]]) for values in (first, second))
    ordered = np.sqrt((one**2).sum(-1) * (two**2).sum(-1))
    taus: NDArray[np.float64] = np.divide(
        (one * two).sum(-1), ordered, out=np.full(ordered.shape, np.nan), where=ordered > 0
    )
    return taus


def rank_agreement(
    first: NDArray[np.float64], second: NDArray[np.float64], *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return tau-b of the means over runs, with a percentile bootstrap interval over runs.

    Runs are drawn together: run r of either experiment has the same seed. With few runs the interval is too narrow:
    three have ten different draws.

    Args:
        first: Scores (R, A) of R runs of A things.
        second: The same in the other experiment.
    """
    runs = len(first)
    value = float(kendall_tau_b(first.mean(0), second.mean(0)))
    drawn = np.random.default_rng(seed).integers(0, runs, (RESAMPLES, runs))
    taus = kendall_tau_b(first[drawn].mean(1), second[drawn].mean(1))
    taus = taus[np.isfinite(taus)]
    if runs < 2 or not len(taus):
        return Interval(value, -1.0, 1.0, level)
    low, high = np.quantile(taus, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, float(low), float(high), level)
