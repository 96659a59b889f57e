"""MLPerf's early-stopping rule: what so few queries say of a percentile of the latency, with 99 % confidence.

A system that just misses a latency bound answers each query late with probability 1 - percentile. Where it would show
so few late answers in fewer than 1 of 100 runs, the system that was seen does better than that: the bound holds.

Source: MLCommons, inference_rules.adoc, appendix "Early Stopping Criterion" (tolerance 0, confidence 0.99), and
LoadGen, early_stopping.cc and results.cc.
Changed: the binomial sum is taken term by term in logarithms, in place of the incomplete beta function. The rule is for
one look at a number of queries that was fixed before. Whoever lengthens a run that just failed and looks again is wrong
more often than in 1 of 100; who looks several times here asks each look for a higher confidence (`spent`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

CONFIDENCE = 0.99


def odds(n: int, late: int, percentile: float) -> float:
    """Return the probability of at most `late` late answers in `n` of a system that just misses the bound."""
    on_time, too_late, whole = math.log(percentile), math.log1p(-percentile), math.lgamma(n + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * too_late + (n - k) * on_time)
        for k in range(min(late, n) + 1)
    )
    return min(1.0, math.fsum(terms))


def spent(looks: int) -> float:
    """Return the confidence that each of several looks needs for all of them together to be wrong in 1 of 100 at most.

    The error is divided by their number (Bonferroni), which holds however the looks depend on each other.
    """
    return 1 - (1 - CONFIDENCE) / looks


@lru_cache(maxsize=4096)
def queries_needed(late: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return after how many queries in all, `late` of them late, the bound holds: h + t of the rules."""
    few, many = late, late + 1
    while not _holds(many, late, percentile, confidence):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _holds(middle, late, percentile, confidence) else (middle, many)
    return many


def most_late(n: int, percentile: float) -> int | None:
    """Return how many of `n` answers may be late for the bound to hold; None where not even 0 may."""
    if not _holds(n, 0, percentile):
        return None
    fine, over = 0, n
    while over - fine > 1:
        middle = (fine + over) // 2
        fine, over = (middle, over) if _holds(n, middle, percentile) else (fine, middle)
    return fine


def early_stopping_estimate(latencies: Sequence[float], percentile: float) -> float | None:
    """Return the latency that holds for the percentile with 99 % confidence: the t-th longest, for the most t allowed.

    None with too few queries: p90 needs 64, p99 662.
    """
    allowed = most_late(len(latencies), percentile)
    return sorted(latencies)[len(latencies) - allowed] if allowed else None


def _holds(n: int, late: int, percentile: float, confidence: float = CONFIDENCE) -> bool:
    return odds(n, late, percentile) < 1 - confidence
