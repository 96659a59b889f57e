from __future__ import annotations

import math

import numpy as np
import pytest

from flyweight.measure.knee import knee, saturation

BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_the_knee_of_the_papers_own_figure_is_found() -> None:
    x = np.linspace(0, 1, 10)
    assert knee(list(x), list(5 - 1 / (x + 0.1))) == pytest.approx(0.22, abs=0.005)


@pytest.mark.parametrize(("fixed", "each"), [(1.0, 1.0), (5.0, 1.0), (0.2, 1.0), (30.0, 2.0)])
def test_the_knee_of_a_batch_with_a_fixed_cost_is_where_the_curve_is_parallel_to_its_chord(
    fixed: float, each: float
) -> None:
    x = np.arange(1, 513)
    # Throughput b / (a + c b) has the slope a / (a + c b)^2, and its chord a / ((a + c) (a + c B)).
    known = (math.sqrt((fixed + each) * (fixed + 512 * each)) - fixed) / each
    assert knee(list(x), list(x / (fixed + each * x))) == pytest.approx(known, abs=1)


def test_on_batches_that_double_the_knee_is_the_nearest_of_them() -> None:
    rates = [batch / (1 + batch) for batch in BATCHES]  # the knee lies at sqrt(2 · 513) - 1 = 31
    assert knee(BATCHES, rates) == 32


def test_a_straight_a_falling_and_a_flat_line_have_no_knee() -> None:
    assert knee(BATCHES, [3.0 * batch for batch in BATCHES]) is None
    assert knee([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0]) is None
    assert knee(BATCHES, [7.0] * len(BATCHES)) is None
    assert knee([1, 2], [1.0, 2.0]) is None


def test_a_dent_that_is_smaller_than_a_step_is_no_knee_of_its_own() -> None:
    rates = [batch / (40 + batch) for batch in range(1, 101)]
    dented = [rate - 0.001 * (index == 5) for index, rate in enumerate(rates)]
    assert knee(range(1, 101), dented) == knee(range(1, 101), rates)


def test_saturation_is_the_smallest_batch_within_five_percent_of_the_best() -> None:
    rates = [batch / (1 + batch) for batch in BATCHES]  # 16 / 17 is 5.7 % below the best, 32 / 33 2.8 %
    assert saturation(BATCHES, rates) == 32
    assert saturation([4, 1, 2], [10.0, 10.0, 12.0]) == 2
    assert saturation(BATCHES, rates, within=0.5) == 1
