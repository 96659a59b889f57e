"""MLPerf's early-stopping rule against its published numbers and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from flyweight.runtime.early_stopping import early_stopping_estimate, most_late, odds, queries_needed, spent


@pytest.mark.parametrize(
    ("late", "percentile", "queries"),
    # ceil(log 0.01 / log p) for none late; 64 and 662 are what LoadGen prints as the least for p90 and p99.
    [(0, 0.9, 44), (0, 0.99, 459), (1, 0.9, 64), (1, 0.99, 662)],
)
def test_the_rule_asks_for_as_many_queries_as_loadgen(late: int, percentile: float, queries: int) -> None:
    assert queries_needed(late, percentile) == queries


@pytest.mark.parametrize("percentile", [0.9, 0.97, 0.99])
@pytest.mark.parametrize("late", [0, 1, 2, 7, 40, 300])
def test_the_queries_needed_are_the_fewest_by_scipys_binomial(late: int, percentile: float) -> None:
    n = queries_needed(late, percentile)
    assert binom.cdf(late, n, 1 - percentile) < 0.01 <= binom.cdf(late, n - 1, 1 - percentile)


@pytest.mark.parametrize(("n", "late"), [(10, 0), (64, 1), (1000, 12), (20_000, 180), (5, 9)])
def test_the_odds_are_those_of_scipy(n: int, late: int) -> None:
    assert odds(n, late, 0.99) == pytest.approx(binom.cdf(late, n, 1 - 0.99), rel=1e-9)


@pytest.mark.parametrize("n", [44, 64, 100, 662, 5000])
def test_the_most_that_may_be_late_is_the_inverse_of_the_queries_needed(n: int) -> None:
    late = most_late(n, 0.9)
    assert late is not None
    assert queries_needed(late, 0.9) <= n < queries_needed(late + 1, 0.9)


def test_too_few_queries_give_no_estimate() -> None:
    assert most_late(43, 0.9) is None
    assert early_stopping_estimate(range(63), 0.9) is None
    assert early_stopping_estimate(range(64), 0.9) == 63


def test_the_estimate_is_the_latency_that_loadgen_reports_in_any_order() -> None:
    # LoadGen, results.cc: sorted[n - t] for the largest t whose h(t) + t is at most n.
    n = 1000
    t = max(t for t in range(1, 20) if queries_needed(t, 0.99) <= n)
    latencies = np.random.default_rng(0).permutation(n).astype(float)
    assert early_stopping_estimate(latencies, 0.99) == n - t


def test_the_estimate_is_above_the_true_percentile_in_99_of_100_runs() -> None:
    random = np.random.default_rng(0)
    true = -np.log(0.1)
    runs = [early_stopping_estimate(random.exponential(size=200), 0.9) for _ in range(1000)]
    assert np.mean([found is not None and found >= true for found in runs]) >= 0.98


@pytest.mark.parametrize("looks", [1, 3, 66])
def test_the_confidence_of_several_looks_lets_all_of_them_be_wrong_in_1_of_100(looks: int) -> None:
    n = queries_needed(7, 0.99, spent(looks))
    assert looks * binom.cdf(7, n, 0.01) < 0.01 <= looks * binom.cdf(7, n - 1, 0.01)
