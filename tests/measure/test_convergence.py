"""Convergence as numbers, from histories worked out by hand and from one that was published."""

from __future__ import annotations

from statistics import stdev

import pytest

from flyweight.measure.convergence import convergence


def history(*accuracies: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "val_accuracy": value} for epoch, value in enumerate(accuracies, 1)]


def test_the_first_epochs_with_90_and_99_percent_of_the_best_are_found() -> None:
    found = convergence(history(0.2, 0.6, 0.72, 0.79, 0.78, 0.8, 0.75))
    assert (found.best, found.best_epoch) == (0.8, 6)
    assert found.epochs_to_90 == 3  # 0.72 is 90 % of 0.8
    assert found.epochs_to_99 == 6  # 0.79 is 98.75 %


def test_the_largest_drop_is_between_two_epochs_that_follow_each_other() -> None:
    assert convergence(history(0.5, 0.8, 0.7, 0.65, 0.9)).largest_drop == pytest.approx(0.1)


def test_a_history_that_only_rises_has_no_drop() -> None:
    assert convergence(history(0.1, 0.2, 0.3)).largest_drop == 0.0


def test_the_tail_is_the_last_fifth_of_the_epochs() -> None:
    values = [0.01 * epoch for epoch in range(30)]
    assert convergence(history(*values)).tail_deviation == pytest.approx(stdev(values[-6:]))


def test_the_tail_has_at_least_five_epochs() -> None:
    assert convergence(history(0.1, 0.5, 0.6, 0.7, 0.8, 0.9)).tail_deviation == pytest.approx(0.1581, abs=1e-4)
    assert convergence(history(0.5, 0.6, 0.7, 0.8)).tail_deviation is None


def test_the_gap_is_the_accuracy_on_training_images_less_that_on_validation() -> None:
    metrics = {"val_accuracy": 0.7, "train_accuracy": 0.95}
    assert convergence(history(0.7), metrics).gap == pytest.approx(0.25)
    assert convergence(history(0.7), {"val_accuracy": 0.7}).gap is None  # a run of an earlier version


def test_the_largest_gradient_is_that_of_any_epoch() -> None:
    rows = [{**row, "grad_norm_max": norm} for row, norm in zip(history(0.1, 0.2), (7.0, 3.0), strict=True)]
    assert convergence(rows).grad_norm_max == 7.0
    assert convergence(history(0.1)).grad_norm_max is None


def test_the_published_course_of_a_convnext_is_read_as_its_authors_say() -> None:
    """ConvNeXt-T of arXiv:2507.23315, its log at eight epochs: slow to begin, at 99 % of its best only at the end."""
    log = {1: 1.11, 5: 3.32, 10: 4.56, 20: 40.83, 50: 76.40, 100: 80.83, 200: 82.95, 300: 83.85}
    found = convergence([{"epoch": epoch, "val_accuracy": value / 100} for epoch, value in log.items()])
    assert (found.epochs_to_90, found.epochs_to_99) == (50, 300)
    assert found.largest_drop == 0.0
