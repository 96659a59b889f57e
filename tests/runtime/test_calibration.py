from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from flyweight.runtime.calibration import fit_temperature, nll, softmax

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(4000, 10)) * 3


def drawn(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Labels that follow the probabilities of logits / temperature."""
    cumulative = softmax(logits, temperature).cumsum(axis=1)
    return (RANDOM.random((len(logits), 1)) > cumulative).sum(axis=1).clip(max=logits.shape[1] - 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found_again(temperature: float) -> None:
    assert fit_temperature(LOGITS, drawn(LOGITS, temperature)) == pytest.approx(temperature, rel=0.06)


def test_it_is_the_minimum_that_scipy_finds() -> None:
    labels = drawn(LOGITS, 2.0)
    rows = np.arange(len(labels))
    reference = minimize_scalar(
        lambda t: -log_softmax(LOGITS / t, axis=1)[rows, labels].mean(), bounds=(0.05, 20), method="bounded"
    )
    assert fit_temperature(LOGITS, labels) == pytest.approx(reference.x, rel=1e-3)
    assert nll(LOGITS, labels, reference.x) == pytest.approx(reference.fun)


def test_a_net_that_is_always_right_keeps_a_finite_confidence() -> None:
    assert fit_temperature(LOGITS, LOGITS.argmax(axis=1)) == pytest.approx(0.05, rel=1e-3)


def test_huge_logits_overflow_nothing() -> None:
    assert softmax(np.array([[1e4, -1e4]]))[0].tolist() == [1.0, 0.0]
    assert np.isfinite(nll(np.array([[1e4, -1e4]]), np.array([1])))
