"""Intervals and tests, exact where they can be; numpy and the standard library only, but for tests over runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import NormalDist

import numpy as np

EXACT_SPLITS = 20_000  # up to here a permutation test looks at every split
FOUND = 0.8  # the power that is meant by what an experiment could find


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of a share, k of n; (0, 1) when n is 0.

    Source: Wilson 1927; Brown, Cai & DasGupta 2001, section 3.1.1.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a share")
    if n == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound is 0 or 1 exactly; rounding would leave it a hair off.
    return (0.0 if k == 0 else max(0.0, centre - half), 1.0 if k == n else min(1.0, centre + half))


def binomial_tail(k: int, n: int, share: float) -> float:
    """Return the exact probability of k or more of n where each comes with probability `share`, in (0, 1)."""
    total = 0.0
    for i in range(k, n + 1):
        term = math.exp(_log_binomial(n, i, share))
        total += term
        if i > n * share and term < 1e-17 * total:  # they only become smaller
            break
    return min(1.0, total)


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided exact p of McNemar's test.

    Args:
        b: Images only the first model gets right.
        c: Images only the second model gets right.
    """
    n = b + c
    if n == 0:
        return 1.0
    tail = sum(math.exp(_log_choose(n, i) - n * math.log(2)) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail)


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return mean(first - second) over the same images, with its percentile bootstrap interval.

    Args:
        first: Score of each image (N,), as 1 for right and 0 for wrong.
        second: The same images' scores by the other model.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    # Equal differences are interchangeable: drawing how often each value comes is the same as drawing images.
    values, counts = np.unique(difference, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(difference), counts / len(difference), size=resamples)
    means = drawn @ values / len(difference)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(difference.mean()), float(low), float(high), level)


def tango(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """Return the difference of two shares of the same n images, with Tango's score interval.

    It keeps its level where a bootstrap and Wald's interval do not: few images that differ, or none at all, when these
    say that nothing can be different.

    Args:
        gained: Images only the second model gets right.
        lost: Images only the first model gets right.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, equations 4 to 6.
    """
    if n == 0:
        return Interval(0.0, -1.0, 1.0, level)
    z = NormalDist().inv_cdf(0.5 + level / 2)

    def score(difference: float) -> float:
        b = -gained - lost + (2 * n - gained + lost) * difference
        c = -lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # of images only the first gets right
        variance = n * (2 * share + difference * (1 - difference))
        distance = gained - lost - n * difference
        return (
            distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
        )

    value = (gained - lost) / n
    return Interval(value, _root(score, z, -1.0, value), _root(score, -z, value, 1.0), level)


def _root(falling: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """Return where a falling function takes a value, between two ends."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > wanted else (low, middle)
    return (low + high) / 2


def ratio_interval(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Return the ratio of two latencies, with the interval that processes give: Welch's, on logarithms.

    Args:
        first: One value (a median, a mean) of each process.
        second: The same of what it is divided by.
    """
    from scipy.stats import t as student

    logs = [np.log(np.asarray(values, np.float64)) for values in (first, second)]
    value = float(logs[0].mean() - logs[1].mean())
    parts = [one.var(ddof=1) / len(one) if len(one) > 1 else math.inf for one in logs]
    error = sum(parts)
    if error == 0.0:
        return Interval(math.exp(value), math.exp(value), math.exp(value), level)
    if math.isinf(error):
        return Interval(math.exp(value), 0.0, math.inf, level)
    df = error**2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, logs, strict=True) if part)
    half = float(student.ppf(0.5 + level / 2, df)) * math.sqrt(error)
    return Interval(math.exp(value), math.exp(value - half), math.exp(value + half), level)


@dataclass(frozen=True)
class PairedRuns:
    """The mean difference between two ways of training, over runs and images, and whether it is none.

    Attributes:
        p: Two-sided, of no difference.
        error: Standard error of the difference, with `df` degrees of freedom.
        of_runs: Standard deviation of the difference from run to run; None for one run, or over data sets.
    """

    difference: Interval
    p: float
    df: float
    error: float
    of_runs: float | None = None


def paired_runs(first: np.ndarray, second: np.ndarray, *, level: float = 0.95) -> PairedRuns:
    """Return how much better `first` scores than `second`, for other runs and other images of the same kind.

    Runs (seeds) and images are crossed random effects, as readers and cases are in radiology: the variance of the mean
    is taken as that of runs over their number plus that of images over theirs, with the degrees of freedom of the runs.
    That is on the safe side: what both share is counted twice, and images have many more degrees of freedom. (Those of
    Satterthwaite are estimated from the few runs too: where these happen to agree, p is many times too small.) One run
    has no variance of its own: with one, the interval is for these trained networks only.

    Args:
        first: Scores (R, N) of R runs on the same N images, as 1 for right and 0 for wrong.
        second: The same of the other way, run r with the seed and split of the first's run r.

    Source: Searle, Casella & McCulloch 1992, "Variance Components", section 4.3. Changed: see above.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    runs, images = difference.shape
    mean, by_run, by_image = difference.mean(), difference.mean(1), difference.mean(0)
    of_runs = by_run.var(ddof=1) / runs if runs > 1 else 0.0
    of_images = by_image.var(ddof=1) / images
    df = runs - 1 if runs > 1 else images - 1
    found = _student(float(mean), float(of_runs + of_images), df, level)
    return replace(found, of_runs=float(by_run.std(ddof=1)) if runs > 1 else None)


def over_data_sets(found: Sequence[PairedRuns], level: float = 0.95) -> PairedRuns:
    """Return the mean difference over data sets that were run and scored apart, each counting the same.

    The interval is for these data sets: what another one would say is not in it. Degrees of freedom by Satterthwaite
    1946, from those of each.
    """
    mean = sum(one.difference.value for one in found) / len(found)
    variances = [(one.error / len(found)) ** 2 for one in found]
    parts = sum(variance**2 / one.df for variance, one in zip(variances, found, strict=True))
    return _student(mean, sum(variances), sum(variances) ** 2 / parts if parts else 1.0, level)


def _student(mean: float, variance: float, df: float, level: float) -> PairedRuns:
    """Return mean, interval and p by Student's distribution."""
    from scipy.stats import t as student

    if variance == 0.0:
        return PairedRuns(Interval(mean, mean, mean, level), 1.0 if mean == 0 else 0.0, 1.0, 0.0)
    error = math.sqrt(variance)
    half = float(student.ppf(0.5 + level / 2, df)) * error
    p = float(2 * student.sf(abs(mean) / error, df))
    return PairedRuns(Interval(mean, mean - half, mean + half, level), p, df, error)


def power(errors: float, df: float, *, tests: int = 1) -> float:
    """Return how often a true difference of so many standard errors is found, at 5 % shared by so many tests.

    That is the noncentral t distribution, integrated here over the estimated error at quantiles of its own
    distribution: scipy's `nct` gives NaN for the few degrees of freedom and far quantiles of few seeds and many tests.

    Args:
        errors: The true difference over its true standard error.
        df: Degrees of freedom of the estimated error.
        tests: In the family; Holm's correction is taken at its strictest, Bonferroni's.

    Source: Johnson, Kotz & Balakrishnan 1995, "Continuous Univariate Distributions", volume 2, chapter 31.
    """
    from scipy.special import ndtr
    from scipy.stats import t as student

    reach = float(student.isf(0.025 / tests, df)) * _estimated_errors(df)
    return float(np.mean(ndtr(errors - reach) + ndtr(-errors - reach)))


@functools.lru_cache(maxsize=64)
def _estimated_errors(df: float) -> np.ndarray:
    """Return evenly likely values of an estimated standard error over the true one."""
    from scipy.stats import chi2

    return np.asarray(np.sqrt(chi2.ppf((np.arange(4000) + 0.5) / 4000, df) / df))


def could_find(error: float, df: float, *, tests: int = 1) -> float:
    """Return the smallest true difference that is found `FOUND` of the time, in a family of so many tests.

    No difference larger than that is ever left unfound beside it: at its size the test of the family rejects.

    Args:
        error: Standard error of the difference, with `df` degrees of freedom.
    """
    from scipy.stats import t as student

    most = 2 * float(student.isf(0.025 / tests, df)) + 10  # surely found
    return _root(lambda errors: -power(errors, df, tests=tests), -FOUND, 0.0, most) * error


@dataclass(frozen=True)
class Spread:
    """What a planned comparison of two ways of training assumes.

    Attributes:
        of_runs: Standard deviation of the paired difference in accuracy from seed to seed.
        disagreeing: Share of the images that only one of the two gets right.
    """

    of_runs: float = 0.005
    disagreeing: float = 0.1


def detectable(runs: int, images: int, *, tests: int = 1, spread: Spread | None = None) -> float:
    """Return the smallest true difference that would be found 4 times in 5, after Holm over so many tests.

    The same model as `paired_runs`: variance of runs over their number plus that of images over theirs, Student's
    distribution with the degrees of freedom of the runs.

    Args:
        runs: Seeds, 2 or more.
    """
    spread = spread or Spread()
    error = math.sqrt(spread.of_runs**2 / runs + spread.disagreeing / images)
    return could_find(error, runs - 1, tests=tests)


def runs_needed(
    difference: float, images: int, *, most: int, tests: int = 1, spread: Spread | None = None
) -> int | None:
    """Return the fewest seeds (3 to `most`) that find a true difference 4 times in 5; None where no number does."""
    for runs in range(3, most + 1):
        if detectable(runs, images, tests=tests, spread=spread) <= difference:
            return runs
    return None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of a few runs with Student's interval; the interval is (-inf, inf) for one run."""
    from scipy.stats import t as student

    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Interval(mean, -math.inf, math.inf, level)
    half = float(student.ppf(0.5 + level / 2, len(numbers) - 1)) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return Interval(mean, mean - half, mean + half, level)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several, in the same order.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted, most = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = most
    return adjusted


def quantile_interval(samples: Sequence[float] | np.ndarray, q: float, level: float = 0.95) -> Interval | None:
    """Return the q-quantile with its distribution-free interval between two order statistics.

    The interval is the narrowest pair of ranks that covers the quantile with at least `level`; it assumes nothing of
    the distribution, and no sample is trimmed. None when no pair of ranks does: p99 needs 299 samples, p90 29,
    p50 6.

    Source: David & Nagaraja 2003, "Order Statistics", section 7.1.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    ranks = _ranks(len(ordered), q, level)
    if ranks is None:
        return None
    value = float(ordered[max(0, math.ceil(q * len(ordered)) - 1)])
    return Interval(value, float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]), level)


def smallest_n(q: float, level: float = 0.95) -> int:
    """Return how many samples `quantile_interval` needs."""
    n = 1
    while _ranks(n, q, level) is None:
        n += 1
    return n


def permutation_test(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], float] = lambda values: float(np.mean(values)),
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Return the two-sided p that two groups differ in `statistic`; exact when there are few splits.

    The values are whatever was assigned at random: for latencies the medians of whole processes, because the samples
    within one process share its luck (memory layout, core, neighbours) and are not independent.
    """
    pooled, size = np.array([*first, *second], np.float64), len(first)
    observed = abs(statistic(pooled[:size]) - statistic(pooled[size:]))
    if math.comb(len(pooled), size) <= EXACT_SPLITS:
        masks = [np.isin(np.arange(len(pooled)), chosen) for chosen in combinations(range(len(pooled)), size)]
        extra = 0
    else:
        random = np.random.default_rng(seed)
        masks = [np.isin(np.arange(len(pooled)), random.permutation(len(pooled))[:size]) for _ in range(resamples)]
        extra = 1  # the split that was seen
    # A tolerance far below any clock: sums in another order must not make equal splits unequal.
    reach = observed - 1e-12 * max(1.0, float(np.abs(pooled).max()))
    hits = sum(abs(statistic(pooled[mask]) - statistic(pooled[~mask])) >= reach for mask in masks)
    return (hits + extra) / (len(masks) + extra)


def midranks(values: Sequence[float]) -> np.ndarray:
    """Return the rank of each value, from 1; equal values share the mean of their ranks."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


def _ranks(n: int, q: float, level: float) -> tuple[int, int] | None:
    """Return the 1-based ranks (l, u) of the narrowest interval [X(l), X(u)] that covers the q-quantile."""
    if n < 2:
        return None
    # P(X(l) <= x_q <= X(u)) >= P(l <= B <= u - 1) for the number B of samples below the quantile.
    cdf = np.cumsum(np.exp([_log_binomial(n, i, q) for i in range(n + 1)]))
    best: tuple[int, float, int, int] | None = None
    for low in range(1, n):
        high = int(np.searchsorted(cdf, cdf[low - 1] + level - 1e-12)) + 1
        if high > n:
            break
        lean = abs((low + high) / 2 - q * (n + 1))
        if best is None or (high - low, lean) < best[:2]:
            best = (high - low, lean, low, high)
    return None if best is None else best[2:]


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_binomial(n: int, k: int, q: float) -> float:
    return _log_choose(n, k) + k * math.log(q) + (n - k) * math.log1p(-q)


def letters(names: Sequence[str], different: Callable[[str, str], bool]) -> dict[str, str]:
    """Return the compact letter display: two names share a letter exactly where they were not found different.

    Args:
        names: Best first; the best has an "a".
        different: Whether two of them differ, whatever the order.

    Source: Piepho 2004, "An algorithm for a letter-based representation of all-pairwise comparisons" (insert and
    absorb).
    """
    columns: list[set[str]] = [set(names)]
    for first, second in combinations(names, 2):
        if not different(first, second):
            continue
        split = [column for column in columns if {first, second} <= column]
        columns = [column for column in columns if column not in split]
        columns += [column - {name} for column in split for name in (first, second)]
        columns = [
            column
            for index, column in enumerate(columns)
            if not any(column < other or (column == other and index > earlier) for earlier, other in enumerate(columns))
        ]
    place = {name: index for index, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    return {name: "".join(_letter(i) for i, column in enumerate(columns) if name in column) for name in names}


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) + "′" * (index // 26)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which points (cost, gain) no other one beats, by no more cost, no less gain, and one of them better."""
    return [
        not any(cost <= mine[0] and gain >= mine[1] and (cost, gain) != mine for cost, gain in points)
        for mine in points
    ]
