"""When a search may end: the chance that more trials improve the result by the user's margin is small."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.terminator import RegretBoundEvaluator
from optuna.trial import FrozenTrial, create_trial

from flyweight.tune.space import Param, Space, Value
from flyweight.tune.suggest import Seen

LEAST_TRIALS = 20
MIDDLE = 0.5  # of a range


def unlikely_to_improve(space: Space, seen: Sequence[Seen], margin: float) -> bool:
    """Return True where a Gaussian process on the trials so far puts the best of the space within `margin` of the best.

    It is asked for one objective, from `LEAST_TRIALS` feasible trials on.

    Source: Makarova et al. 2022, arXiv:2104.08166 (the bound on the regret, in Optuna's form).
    """
    known = [trial for trial in seen if trial.values is not None and not trial.infeasible]
    if len(known) < LEAST_TRIALS or any(len(trial.values or ()) > 1 for trial in known):
        return False
    axes = _axes(space)
    trials = [_placed(space, axes, trial) for trial in known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        bound = RegretBoundEvaluator(seed=0).evaluate(trials, StudyDirection.MAXIMIZE)
    return bound < margin


def _axes(space: Space) -> dict[str, BaseDistribution]:
    """Return one axis for each key of the recipe: the process sees only what all trials have, and conditional values
    would play no part in it.

    A range is from 0 to 1, wherever its ends lie: the rate of one optimizer and that of another share an axis.
    """
    keys: dict[str, list[Param]] = {}
    for param in space.params:
        keys.setdefault(param.key, []).append(param)
    return {
        key: CategoricalDistribution(_choices(params))
        if any(one.choices for one in params)
        else FloatDistribution(0, 1)
        for key, params in keys.items()
    }


def _choices(params: Sequence[Param]) -> tuple[Value, ...]:
    """Return all choices of params that share a key, the ends of a range among them."""
    return tuple(dict.fromkeys(value for one in params for value in one.choices or one.range))


def _placed(space: Space, axes: Mapping[str, BaseDistribution], trial: Seen) -> FrozenTrial:
    """Return a trial with a value on every axis; one that it does not have lies at its likely value, or in the middle.

    Source: Lévesque et al. 2017, "Bayesian optimization for conditional hyperparameter spaces", section III-B.
    """
    values: dict[str, Any] = {}
    for param in space.params:
        if param.name in trial.params:
            values[param.key] = _on(axes[param.key], param, trial.params[param.name])
        elif param.key not in values:
            values[param.key] = _on(axes[param.key], param, _default(param))
    return create_trial(params=values, distributions=dict(axes), values=list(trial.values or ()))


def _on(axis: BaseDistribution, param: Param, value: Any) -> Any:
    if isinstance(axis, FloatDistribution):
        return min(max(param.place(value), 0.0), 1.0)
    low, high = param.range if not param.choices else (None, None)
    return value if param.choices else low if 2 * param.place(value) < 1 else high


def _default(param: Param) -> Any:
    if param.likely is not None:
        return param.likely
    return param.choices[0] if param.choices else param.at(MIDDLE)
