"""Rungs: complete, shorter trainings, each about eta times cheaper than the next."""

from __future__ import annotations

import pytest

from flyweight.errors import RecipeError
from flyweight.train.recipe import DataPart, Recipe
from flyweight.tune.fidelity import plan_ladder


def test_each_rung_costs_a_third_of_the_next_and_the_last_is_the_full_training() -> None:
    ladder = plan_ladder(27, 1000, rungs=4, eta=3, least_images=10)
    assert [rung.images for rung in ladder] == [999, 3000, 9000, 27_000]
    assert (ladder[-1].epochs, ladder[-1].share) == (27, 1.0)


def test_epochs_go_first_and_three_of_them_stay_before_images_go() -> None:
    ladder = plan_ladder(9, 9000, rungs=3, eta=3, least_images=100)
    assert [(rung.epochs, round(rung.share, 3)) for rung in ladder] == [(3, 0.333), (3, 1.0), (9, 1.0)]


def test_with_size_a_shorter_rung_has_smaller_images_and_counts_their_pixels() -> None:
    ladder = plan_ladder(9, 3000, rungs=2, eta=3, shrinks=("epochs", "size"), image_size=48, least_images=100)
    assert ladder[0].image_size == 32
    assert ladder[0].cost == pytest.approx(ladder[0].images * (32 / 48) ** 2)
    assert ladder[0].cost <= 9 * 3000 / 2


def test_a_rung_changes_length_alone() -> None:
    full = Recipe(epochs=9, data=DataPart(train_fraction=0.5), batch_size=32)
    (short, long) = plan_ladder(9, 9000, rungs=2, eta=9, least_images=100)
    assert long.recipe(full) == full
    cut = short.recipe(full)
    assert cut.data.train_fraction == pytest.approx(0.5 * short.share)
    assert cut.model_copy(update={"epochs": 9, "data": full.data}) == full


def test_a_training_too_short_for_the_rungs_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be made shorter"):
        plan_ladder(3, 1000, rungs=3, eta=3, least_images=1000)
