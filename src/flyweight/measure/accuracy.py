"""Every accuracy number of a set of logits, with the interval that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.measure.statistics import wilson
from flyweight.runtime.calibration import nll, softmax

BINS = 15  # of confidence, equally wide


@dataclass(frozen=True)
class ClassScore:
    """One class: shares in 0..1; None where there is nothing to divide by."""

    name: str
    n: int
    recall: float | None
    recall_low: float
    recall_high: float
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of logits against labels; all shares in 0..1.

    Attributes:
        top1: Share of images whose top-1 class is right; `low` and `high` its Wilson 95 % interval.
        top5: Share with the right class among the first five; None with five classes or fewer.
        balanced: Mean recall of the classes that occur.
        macro_f1: Mean F1 of the classes that occur.
        min_recall: Recall of the worst class that occurs.
        ece: Expected calibration error of the tempered confidence, 15 equal bins.
        nll: Mean negative log-likelihood, nats.
        confusion: confusion[i][j] images of class i were called j.
        bins: Per bin of confidence (mean confidence, accuracy, n), empty ones left out.
    """

    top1: float
    low: float
    high: float
    n: int
    top5: float | None
    balanced: float
    macro_f1: float
    min_recall: float
    per_class: tuple[ClassScore, ...]
    ece: float
    nll: float
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[tuple[float, float, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values without NaN."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **plain,
            "per_class": [dict(vars(row)) for row in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            "bins": [list(row) for row in self.bins],
        }


# What a budget may maximise.
METRICS: dict[str, Callable[[Accuracy], float]] = {
    "accuracy": lambda found: found.top1,
    "balanced_accuracy": lambda found: found.balanced,
    "macro_f1": lambda found: found.macro_f1,
    "min_recall": lambda found: found.min_recall,
}


def score(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], temperature: float = 1.0) -> Accuracy:
    """Return the accuracy of logits (N, K) for labels (N,) of K classes; N must not be 0.

    A tie goes to the class that comes first. An image with a logit that is not finite counts as wrong: its class is
    taken to be another one.
    """
    labels = np.asarray(labels, np.int64)
    if logits.shape != (len(labels), len(classes)) or not len(labels):
        raise ValueError(f"logits {logits.shape} for {len(labels)} labels of {len(classes)} classes")
    logits = _finite(np.asarray(logits, np.float64), labels)
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    rows = tuple(_class_score(name, confusion, i) for i, name in enumerate(classes))
    present = [row for row in rows if row.n]
    right = int(np.trace(confusion))
    low, high = wilson(right, len(labels))
    ece, bins = calibration(softmax(logits, temperature), predicted == labels)
    return Accuracy(
        top1=right / len(labels),
        low=low,
        high=high,
        n=len(labels),
        top5=top_k(logits, labels, 5) if len(classes) > 5 else None,
        balanced=float(np.mean([row.recall for row in present])),
        macro_f1=float(np.mean([row.f1 for row in present])),
        min_recall=float(np.min([row.recall for row in present])),
        per_class=rows,
        ece=ece,
        nll=nll(logits, labels, temperature),
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        bins=bins,
    )


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of images with the label among the k largest logits; ties go to the first class."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    ahead = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
    return float(np.mean(ahead < k))


def calibration(probs: np.ndarray, right: np.ndarray) -> tuple[float, tuple[tuple[float, float, int], ...]]:
    """Return the expected calibration error and the (mean confidence, accuracy, n) of each filled bin."""
    confidence = probs.max(axis=1)
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for i in np.unique(bin_of):
        chosen = bin_of == i
        bins.append((float(confidence[chosen].mean()), float(right[chosen].mean()), int(chosen.sum())))
    return sum(abs(mean - share) * n for mean, share, n in bins) / len(right), tuple(bins)


def _class_score(name: str, confusion: np.ndarray, i: int) -> ClassScore:
    right, n, called = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
    low, high = wilson(right, n)
    return ClassScore(
        name=name,
        n=n,
        recall=right / n if n else None,
        recall_low=low,
        recall_high=high,
        precision=right / called if called else None,
        f1=2 * right / (n + called) if n + called else None,
    )


def _finite(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    broken = ~np.isfinite(logits).all(axis=1)
    if broken.any():
        logits = logits.copy()
        logits[broken] = 0.0
        logits[broken, (labels[broken] + 1) % logits.shape[1]] = 1.0
    return logits
