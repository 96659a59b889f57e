"""Confidence that means what it says: one temperature, fitted on the validation part."""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities (N, K) float64 of logits (N, K) divided by the temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probs


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood, in nats, of labels (N,) under logits (N, K) / temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1)
    normalizer = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float(np.mean(normalizer - scaled[np.arange(len(labels)), labels]))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the negative log-likelihood, within 0.05 to 20.

    The likelihood is convex in 1 / temperature, so that a golden-section search finds its one minimum. A net that
    is always right would like 0: the bound keeps its confidence finite.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    Changed: searched in the logarithm of the temperature, between bounds.
    """
    ratio = (np.sqrt(5) - 1) / 2
    low, high = np.log(LOWEST), np.log(HIGHEST)
    while high - low > 1e-5:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if nll(logits, labels, np.exp(left)) <= nll(logits, labels, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
