"""The range test reads rates from a curve, and makes the curve from the recipe's own batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flyweight.data.dataset import Dataset
from flyweight.errors import RecipeError
from flyweight.train.range_curve import RangeTest, rates, read_range, smooth
from flyweight.train.range_test import range_test
from flyweight.train.recipe import Recipe


def valley(lrs: list[float], bottom: float) -> list[float]:
    """Return a loss that is 2.3, falls to about 1 at `bottom` and rises far above its start."""
    return [2.3 - 1.3 * math.exp(-((math.log10(lr / bottom) / 0.8) ** 2)) + max(0, 5 * math.log10(lr)) for lr in lrs]


def test_the_rates_rise_by_the_same_factor() -> None:
    found = rates(1e-4, 1.0, 21)
    assert (found[0], found[-1]) == (pytest.approx(1e-4), pytest.approx(1.0))
    assert np.ptp(np.diff(np.log(found))) < 1e-9


def test_a_valley_gives_its_bottom_its_slope_and_where_it_is_left() -> None:
    lrs = rates(1e-5, 10, 400)
    found = read_range(lrs, valley(lrs, 0.1))
    assert found.lowest == pytest.approx(0.1, rel=0.5)  # the running mean is behind by some steps
    assert found.suggested == pytest.approx(found.lowest / 10)  # type: ignore[operator]
    assert 0.005 < found.steepest < 0.1  # type: ignore[operator]
    assert found.diverges > 0.5  # type: ignore[operator]
    assert min(found.smoothed) < 1.3


def test_a_loss_that_stays_level_or_only_rises_suggests_nothing() -> None:
    lrs = rates(1e-5, 10, 50)
    found = read_range(lrs, [2.3 + 0.01 * step for step in range(50)])
    assert (found.lowest, found.suggested, found.steepest) == (None, None, None)
    assert found.diverges == lrs[1]


def test_a_loss_that_is_not_finite_is_where_it_diverges() -> None:
    lrs = rates(1e-3, 1, 30)
    found = read_range(lrs[:11], [2.3 - 0.1 * step for step in range(10)])
    assert found.diverges == lrs[10]
    assert found.lowest == lrs[9]


def test_a_range_that_ends_before_the_loss_is_lost_says_no_rate_that_diverges() -> None:
    lrs = rates(1e-3, 1, 30)
    assert read_range(lrs, [2.3 - 0.05 * step for step in range(30)]).diverges is None


def test_the_running_mean_has_no_bias_towards_zero() -> None:
    assert smooth([3.0] * 40) == pytest.approx([3.0] * 40)


@pytest.mark.parametrize(("low", "high", "steps"), [(0.0, 1.0, 100), (1.0, 0.1, 100), (1e-5, 10.0, 5)])
def test_impossible_ranges_are_refused(low: float, high: float, steps: int) -> None:
    with pytest.raises(RecipeError, match=f"in {steps} steps"):
        rates(low, high, steps)


def test_a_recipe_with_stages_is_refused(few: Dataset, quick: Recipe) -> None:
    staged = Recipe.model_validate({**quick.model_dump(), "stages": [{"epochs": 1}]})
    with pytest.raises(RecipeError, match="range test needs a recipe without stages"):
        next(range_test(few, staged))


def test_the_test_learns_on_real_batches_and_ends_where_the_loss_is_lost(few: Dataset, quick: Recipe) -> None:
    *steps, found = range_test(few, quick, low=1e-3, high=1e6, steps=60)
    assert isinstance(found, RangeTest)
    assert len(steps) < 60
    assert found.losses[0] == pytest.approx(math.log(10), abs=0.5)
    assert min(found.smoothed) < found.smoothed[0] - 0.1
    assert found.lowest is not None
    assert found.diverges is not None
    assert found.suggested < found.lowest < found.diverges  # type: ignore[operator]


def test_the_same_recipe_gives_the_same_curve(few: Dataset, quick: Recipe) -> None:
    one, other = (list(range_test(few, quick, steps=20))[-1] for _ in range(2))
    assert one == other
