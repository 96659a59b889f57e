"""How a training went, as numbers read from its history: how soon, how steadily, how far from its own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev

TAIL_SHARE = 0.2  # the last fifth of the epochs
LEAST_TAIL = 5  # epochs, below which no deviation is stated


@dataclass(frozen=True)
class Convergence:
    """The course of one training. Accuracies are of the validation images, 0 to 1.

    Attributes:
        best: The highest of any epoch; `best_epoch` is the first that has it, from 1.
        epochs_to_90, epochs_to_99: The first epoch with 90 and 99 % of the best.
        tail_deviation: Standard deviation over the last fifth of the epochs, five at least; None where there are fewer.
        largest_drop: From one epoch to the next; 0 where none is worse than the one before.
        gap: Accuracy on training images, not augmented, less that on validation, of the kept weights; None where the
            first was not measured.
        grad_norm_max: Largest norm of the gradient of any step, before clipping; None where it was not clipped.
    """

    best: float
    best_epoch: int
    epochs_to_90: int
    epochs_to_99: int
    tail_deviation: float | None
    largest_drop: float
    gap: float | None = None
    grad_norm_max: float | None = None


def convergence(history: Sequence[Mapping[str, float]], metrics: Mapping[str, float] | None = None) -> Convergence:
    """Return how a training went.

    Args:
        history: One row an epoch with `epoch` and `val_accuracy`, as a run's history.jsonl; at least one.
        metrics: Of the kept weights: `val_accuracy` and, for the gap, `train_accuracy`, as `Trained.metrics`.
    """
    values = [row["val_accuracy"] for row in history]
    best = max(values)

    def first(share: float) -> int:
        return int(next(row["epoch"] for row in history if row["val_accuracy"] >= share * best - 1e-9))

    tail = values[-max(LEAST_TAIL, round(TAIL_SHARE * len(values))) :]
    drops = [before - after for before, after in pairwise(values)]
    metrics = metrics or {}
    norms = [row["grad_norm_max"] for row in history if "grad_norm_max" in row]
    return Convergence(
        best=best,
        best_epoch=first(1.0),
        epochs_to_90=first(0.9),
        epochs_to_99=first(0.99),
        tail_deviation=stdev(tail) if len(tail) >= LEAST_TAIL else None,
        largest_drop=max([0.0, *drops]),
        gap=metrics["train_accuracy"] - metrics["val_accuracy"] if "train_accuracy" in metrics else None,
        grad_norm_max=max(norms) if norms else None,
    )
