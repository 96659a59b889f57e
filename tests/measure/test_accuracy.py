from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics

from flyweight.measure.accuracy import METRICS, score

RANDOM = np.random.default_rng(0)
CLASSES = tuple("abcdefgh")
LABELS = RANDOM.choice(8, 600, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])
LOGITS = RANDOM.normal(size=(600, 8)) + 2 * np.eye(8)[LABELS]
PREDICTED = LOGITS.argmax(axis=1)


def test_every_number_is_that_of_scikit_learn() -> None:
    found = score(LOGITS, LABELS, CLASSES)
    recalls = sklearn.metrics.recall_score(LABELS, PREDICTED, average=None)
    assert found.top1 == sklearn.metrics.accuracy_score(LABELS, PREDICTED)
    assert found.top5 == pytest.approx(sklearn.metrics.top_k_accuracy_score(LABELS, LOGITS, k=5))
    assert found.balanced == pytest.approx(sklearn.metrics.balanced_accuracy_score(LABELS, PREDICTED))
    assert found.macro_f1 == pytest.approx(sklearn.metrics.f1_score(LABELS, PREDICTED, average="macro"))
    assert found.min_recall == pytest.approx(recalls.min())
    assert [row.recall for row in found.per_class] == pytest.approx(list(recalls))
    assert [list(row) for row in found.confusion] == sklearn.metrics.confusion_matrix(LABELS, PREDICTED).tolist()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_likelihood_is_that_of_the_tempered_probabilities(temperature: float) -> None:
    probs = np.exp(LOGITS / temperature)
    probs /= probs.sum(axis=1, keepdims=True)
    expected = sklearn.metrics.log_loss(LABELS, probs, labels=range(8))
    assert score(LOGITS, LABELS, CLASSES, temperature).nll == pytest.approx(expected)


def test_calibration_error_is_small_for_calibrated_and_large_for_boastful_confidence() -> None:
    logits = RANDOM.normal(size=(20_000, 4)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (RANDOM.random((20_000, 1)) > probs.cumsum(axis=1)).sum(axis=1).clip(max=3)
    assert score(logits, labels, "abcd").ece < 0.02
    assert score(logits, labels, "abcd", temperature=0.25).ece > 0.1


def test_two_images_by_hand() -> None:
    logits = np.log([[0.8, 0.2], [0.6, 0.4]])
    found = score(logits, np.array([0, 1]), ("x", "y"))
    # Confidence 0.8 right and 0.6 wrong, in bins of their own: (0.2 + 0.6) / 2.
    assert found.ece == pytest.approx(0.4)
    assert (found.top1, found.min_recall, found.top5) == (0.5, 0.0, None)


def test_a_class_without_images_is_left_out_of_the_means() -> None:
    found = score(np.eye(3)[[0, 1]], np.array([0, 1]), "abc")
    assert (found.balanced, found.macro_f1, found.min_recall) == (1.0, 1.0, 1.0)
    assert found.per_class[2].recall is None


def test_logits_that_are_not_finite_count_as_wrong() -> None:
    logits = np.array([[np.nan, 0.0], [np.inf, np.inf], [1.0, 0.0]])
    assert score(logits, np.array([0, 0, 0]), "ab").top1 == pytest.approx(1 / 3)


def test_top5_breaks_ties_as_top1_does() -> None:
    assert score(np.zeros((8, 8)), np.arange(8), CLASSES).top5 == pytest.approx(5 / 8)


def test_the_json_is_plain_and_every_metric_of_a_budget_is_there() -> None:
    found = score(LOGITS, LABELS, CLASSES)
    json.dumps(found.to_json(), allow_nan=False)
    assert [METRICS[name](found) for name in ("accuracy", "balanced_accuracy", "macro_f1", "min_recall")] == [
        found.top1,
        found.balanced,
        found.macro_f1,
        found.min_recall,
    ]


def test_logits_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(600, 8\)"):
        score(LOGITS, LABELS, "abc")
