"""Kendall's tau-b against scipy's, and its interval over runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from flyweight.measure.ranking import kendall_tau_b, rank_agreement


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys_with_and_without_ties(seed: int, ties: bool) -> None:
    first, second = np.random.default_rng(seed).random((2, 9))
    if ties:
        first, second = np.round(first, 1), np.round(second, 1)
    assert float(kendall_tau_b(first, second)) == pytest.approx(kendalltau(first, second, variant="b").statistic)


def test_the_same_order_is_one_the_reverse_minus_one_and_no_order_is_not_a_number() -> None:
    values = np.array([0.1, 0.5, 0.9])
    assert kendall_tau_b(values, values**2) == 1.0
    assert kendall_tau_b(values, -values) == -1.0
    assert np.isnan(kendall_tau_b(values, np.zeros(3)))


def test_runs_that_all_agree_leave_no_doubt_and_noisy_ones_do() -> None:
    clear = np.array([[0.1, 0.5, 0.9]] * 3) + 0.001 * np.arange(3)[:, None]
    assert (rank_agreement(clear, clear).low, rank_agreement(clear, clear).high) == (1.0, 1.0)
    noisy = np.random.default_rng(0).random((5, 6))
    found = rank_agreement(noisy, noisy[::-1] + np.random.default_rng(1).random((5, 6)))
    assert found.low < found.value < found.high


def test_one_run_says_nothing_of_others() -> None:
    found = rank_agreement(np.array([[0.1, 0.2]]), np.array([[0.1, 0.3]]))
    assert (found.value, found.low, found.high) == (1.0, -1.0, 1.0)
