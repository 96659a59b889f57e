"""Functions of one number: in C, and in numpy for the tables that replace them in int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import erf
from typing import Any

import numpy as np

from flyweight.export.c.graph import Array

_erf = np.vectorize(erf, otypes=[np.float64])


@dataclass(frozen=True)
class Unary:
    """A function of x with two arguments at most.

    Attributes:
        c: Its expression in x, p->a and p->b.
        numpy: The same of an array.
        arguments: Gives a and b from the node's attributes.
    """

    c: str
    numpy: Callable[[Array, Any, Any], Array]
    arguments: Callable[[Mapping[str, Any]], tuple[float, float]] = lambda given: (0.0, 0.0)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


UNARY: dict[str, Unary] = {
    "Clip": Unary("clamp(x, p->a, p->b)", lambda x, a, b: np.clip(x, a, b)),
    "HardSigmoid": Unary(
        "clamp(p->a * x + p->b, 0.0f, 1.0f)",
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda given: (given.get("alpha", 0.2), given.get("beta", 0.5)),
    ),
    "HardSwish": Unary(
        "x * clamp(x / 6.0f + 0.5f, 0.0f, 1.0f)", lambda x, a, b: x * np.clip(x / np.float32(6) + np.float32(0.5), 0, 1)
    ),
    "LeakyRelu": Unary(
        "x < 0.0f ? p->a * x : x",
        lambda x, a, b: np.where(x < 0, a * x, x),
        lambda given: (given.get("alpha", 0.01), 0.0),
    ),
    "Elu": Unary(
        "x < 0.0f ? p->a * (expf(x) - 1.0f) : x",
        lambda x, a, b: np.where(x < 0, a * (np.exp(np.minimum(x, 0)) - 1), x),
        lambda given: (given.get("alpha", 1.0), 0.0),
    ),
    "Sigmoid": Unary("1.0f / (1.0f + expf(-x))", lambda x, a, b: _sigmoid(x)),
    "Tanh": Unary("tanhf(x)", lambda x, a, b: np.tanh(x)),
    "Erf": Unary("erff(x)", lambda x, a, b: _erf(x).astype(np.float32)),
    "Gelu": Unary("0.5f * x * (1.0f + erff(x * 0.70710678f))", lambda x, a, b: 0.5 * x * (1 + _erf(x / np.sqrt(2)))),
    "Exp": Unary("expf(x)", lambda x, a, b: np.exp(x)),
    "Sqrt": Unary("sqrtf(x)", lambda x, a, b: np.sqrt(x)),
    "Neg": Unary("-x", lambda x, a, b: -x),
}
