"""One axis for each key of the recipe: how a model sees a space with conditional values.

A model of all trials sees only what all of them have, and a conditional value, such as the rate of one optimizer, would
play no part in it. So the ranges of a key share an axis from 0 to 1, wherever their ends lie: the middle of one
optimizer's rates is the middle of another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from flyweight.tune.space import Param, Space, Value

MIDDLE = 0.5  # of a range


def axes_of(space: Space) -> dict[str, BaseDistribution]:
    """Return an axis for each key: its choices, where every param of the key has the same; else from 0 to 1."""
    found: dict[str, BaseDistribution] = {}
    for param in space.params:
        axis = CategoricalDistribution(param.choices) if param.choices else FloatDistribution(0.0, 1.0)
        alike = param.key not in found or found[param.key] == axis
        found[param.key] = axis if alike else FloatDistribution(0.0, 1.0)
    return found


def placed(space: Space, axes: Mapping[str, BaseDistribution], params: Mapping[str, Value]) -> dict[str, Any]:
    """Return where a trial lies on every axis; on one that it has no value for, at the likely value or in the middle.

    Args:
        params: Of the trial, by name in the study.

    Source: Lévesque et al. 2017, "Bayesian optimization for conditional hyperparameter spaces", section III-B.
    """
    values: dict[str, Any] = {}
    for param in space.params:
        if param.name in params:
            values[param.key] = _place(axes[param.key], param, params[param.name])
        elif param.key not in values:
            values[param.key] = _place(axes[param.key], param, _default(param))
    return values


def value_at(axis: BaseDistribution, param: Param, place: Any) -> Value:
    """Return the value of a param at a place of its axis: the inverse of `placed`."""
    if isinstance(axis, CategoricalDistribution):
        value: Value = place
        return value
    if param.choices:
        return param.choices[min(int(place * len(param.choices)), len(param.choices) - 1)]
    return param.at(place)


def _place(axis: BaseDistribution, param: Param, value: Any) -> Any:
    if isinstance(axis, CategoricalDistribution):
        return value
    if param.choices:
        return (param.choices.index(value) + 0.5) / len(param.choices)
    return min(max(param.place(value), 0.0), 1.0)


def _default(param: Param) -> Any:
    if param.likely is not None:
        return param.likely
    return param.choices[0] if param.choices else param.at(MIDDLE)
