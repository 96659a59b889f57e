"""What to try next: Optuna's samplers on what is known of all trials so far, short ones included.

Each suggestion is a function of (seed, number of the trial, finished trials): a search that was killed goes on with the
same trials. The sampler works on a copy of the study in memory, in which a trial that was only trained on a short rung
has the value it would have reached at full length, as far as those that were trained on both say; so every sampler, not
only one that knows of pruning, learns from it, and several objectives are no special case.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState, create_trial

from flyweight.errors import MissingExtraError, RecipeError
from flyweight.tune.axes import axes_of, placed, value_at
from flyweight.tune.space import Param, Space, Value

STARTUP = 8  # trials around the likely values before a model of them is asked
SPREAD = 0.2  # of the range: standard deviation around a likely value
STATE = "sampler_state"
SEQUENCE = 0  # seed of what is one sequence over all trials, and not drawn anew for each

Directions = Sequence[optuna.study.StudyDirection]
SAMPLERS: dict[str, Callable[[int, Space], BaseSampler]] = {
    "tpe": lambda seed, _: TPESampler(seed=seed, n_startup_trials=0, multivariate=True, group=True),
    "gp": lambda seed, _: GPSampler(seed=seed, n_startup_trials=1),
    "cmaes": lambda seed, _: CmaEsSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False),
    "qmc": lambda seed, _: QMCSampler(
        seed=SEQUENCE,
        scramble=True,
        independent_sampler=RandomSampler(seed=seed),
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
    ),
    "random": lambda seed, _: RandomSampler(seed=seed),
    "grid": lambda _, space: GridSampler(grid_of(space), seed=SEQUENCE),
}
MODELLED = frozenset({"tpe", "gp", "cmaes"})  # those that begin around the likely values
ON_AXES = frozenset({"gp", "cmaes", "qmc"})  # those that see only what all trials have: one axis a key
NEEDS = {"cmaes": "cmaes", "gp": "torch"}


@dataclass(frozen=True)
class Seen:
    """A trial as the sampler sees it.

    Attributes:
        params: By name in the study.
        values: Of the objectives, full length; None while it is being trained.
        excess: By how much a limit is broken, by metric, as a share of it; above 0: infeasible, and never trained.
    """

    params: Mapping[str, Value]
    values: tuple[float, ...] | None
    excess: Mapping[str, float] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def infeasible(self) -> bool:
        """True where a limit is broken."""
        return any(over > 0 for over in self.excess.values())


@dataclass(frozen=True)
class Suggestion:
    """Values by name in the study, with what Optuna needs to know of them, and what the sampler remembers."""

    params: dict[str, Value]
    distributions: dict[str, BaseDistribution]
    system_attrs: dict[str, Any]
    state: dict[str, Any]


def suggest(
    space: Space,
    sampler: str,
    seen: Sequence[Seen],
    *,
    seed: int,
    directions: Directions,
    fixed: Mapping[str, Value] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Suggestion:
    """Return the values of the next trial, whose number is that of the trials seen.

    Args:
        sampler: A name in `SAMPLERS`.
        fixed: Values, by name, that are given: the scientific ones.
        state: What the sampler remembers beside the trials, from the last suggestion.

    Raises:
        RecipeError: No sampler of that name, or a space that it cannot search.
        MissingExtraError: It needs a package that is not installed.
    """
    number, fixed = len(seen), dict(fixed or {})
    own = np.random.SeedSequence([seed, number])
    chosen = make_sampler(sampler, space, int(own.generate_state(1)[0]))
    if sampler in MODELLED and number < STARTUP:
        return _around_likely(space, np.random.default_rng(own), fixed, far=number >= STARTUP // 2)
    axes = axes_of(space) if sampler in ON_AXES else {}
    copy = as_study(space, seen, directions, axes)
    for key, value in (state or {}).items():
        copy._storage.set_study_system_attr(copy._study_id, key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # What is fixed has no condition, so its name is its key.
        copy.sampler = PartialFixedSampler(fixed, chosen) if fixed else chosen
        trial = copy.ask(axes)
        params = _ask_space(trial, space, axes)
    kept = copy._storage.get_trial(trial._trial_id)
    study_state = copy._storage.get_study_system_attrs(copy._study_id)
    remembered = {key: value for key, value in study_state.items() if not key.startswith("study:")}
    attributes = {key: value for key, value in kept.system_attrs.items() if key != "fixed_params"}
    return Suggestion(params, _distributions(space, params), attributes, remembered)


def _ask_space(trial: optuna.Trial, space: Space, axes: Mapping[str, BaseDistribution]) -> dict[str, Value]:
    """Return the values of a trial, by name in the study."""
    values: dict[str, Any] = {}
    params: dict[str, Value] = {}
    for param in space.params:
        if param.active(values):
            value = value_at(axes[param.key], param, trial.params[param.key]) if axes else _ask(trial, param)
            values[param.key] = params[param.name] = value
    return params


def _distributions(space: Space, params: Mapping[str, Value]) -> dict[str, BaseDistribution]:
    return {param.name: distribution(param) for param in space.params if param.name in params}


def as_study(
    space: Space, seen: Sequence[Seen], directions: Directions, axes: Mapping[str, BaseDistribution] | None = None
) -> optuna.Study:
    """Return a study in memory that holds the trials as they are seen: by name, or where they lie on axes."""
    copy = optuna.create_study(directions=list(directions))
    copy.add_trials([_as_optuna(space, trial, axes or {}) for trial in seen])
    return copy


def make_sampler(name: str, space: Space, seed: int) -> BaseSampler:
    """Return the sampler of that name.

    Raises:
        RecipeError: There is none, or grid was asked for and a value has a range in place of choices.
        MissingExtraError: It needs a package that is not installed.
    """
    if name not in SAMPLERS:
        raise RecipeError(
            f"there is no sampler {name!r}", do=f"choose {', '.join(sorted(SAMPLERS))}", more="docs/tuning.md#samplers"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return SAMPLERS[name](seed, space)
        except ImportError as error:
            raise MissingExtraError(
                f"the sampler {name} needs {NEEDS.get(name, name)}, which is not installed",
                do="pip install 'flyweight[tune]'",
            ) from error


def grid_of(space: Space) -> dict[str, tuple[Value, ...]]:
    """Return the choices of every value.

    Raises:
        RecipeError: One has a range, or a condition.
    """
    ranged = [param.key for param in space.params if not param.choices or param.when]
    if ranged:
        raise RecipeError(
            f"the sampler grid needs choices without when, and {', '.join(ranged)} has a range or a condition",
            do="give choices: [0.01, 0.03, 0.1], or choose another sampler",
            more="docs/tuning.md#samplers",
        )
    return {param.name: param.choices for param in space.params}


def distribution(param: Param) -> BaseDistribution:
    """Return Optuna's form of a param."""
    if param.choices:
        return CategoricalDistribution(param.choices)
    low, high = param.range
    if param.integer:
        return IntDistribution(int(low), int(high), log=param.log)
    return FloatDistribution(low, high, log=param.log)


def directions_of(names: Sequence[str]) -> list[optuna.study.StudyDirection]:
    """Return Optuna's directions: accuracy and its kin are made larger, costs smaller."""
    first, *costs = names
    del first
    return [optuna.study.StudyDirection.MAXIMIZE] + [optuna.study.StudyDirection.MINIMIZE] * len(costs)


def expected_at_full(scores: Sequence[Mapping[int, float]], full: int) -> list[float | None]:
    """Return what each trial reached on the full rung, or would have: its own longest, plus the usual gain from there.

    The gain is the median, over the trials that were trained on both, of the difference between a rung and the next.

    Args:
        scores: Of each trial by rung (0 the shortest); {} while nothing is finished.
    """
    gains = [
        [scored[rung + 1] - scored[rung] for scored in scores if rung in scored and rung + 1 in scored]
        for rung in range(full)
    ]
    usual = [statistics.median(gain) if gain else 0.0 for gain in gains]
    return [scored[max(scored)] + sum(usual[max(scored) :]) if scored else None for scored in scores]


def leaders(scores: Sequence[Mapping[int, float]], full: int) -> list[int]:
    """Return the indices of the trials that came as far as the rung before the full one, best first.

    They are ordered by what they reached at full length, or would have, equal ones by their longest rung: a search has
    an incumbent before its first full training is done. What it hands out in the end is another matter: `winners`.
    """
    expected = expected_at_full(scores, full)
    far = [index for index, scored in enumerate(scores) if scored and max(scored) >= full - 1]
    return sorted(far, key=lambda index: (-(expected[index] or 0.0), -max(scores[index]), index))


def _ask(trial: optuna.Trial, param: Param) -> Value:
    if param.choices:
        found = trial.suggest_categorical(param.name, param.choices)
        assert found is not None
        return found
    low, high = param.range
    if param.integer:
        return trial.suggest_int(param.name, int(low), int(high), log=param.log)
    return trial.suggest_float(param.name, low, high, log=param.log)


def _as_optuna(space: Space, trial: Seen, axes: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    known = axes or {param.name: distribution(param) for param in space.params}
    here = placed(space, axes, trial.params) if axes else trial.params
    params = {name: value for name, value in here.items() if name in known}
    state = TrialState.COMPLETE if trial.values is not None else TrialState.RUNNING
    return create_trial(
        state=TrialState.PRUNED if trial.infeasible else state,
        values=None if trial.values is None or trial.infeasible else list(trial.values),
        params=params,
        distributions={name: known[name] for name in params},
        system_attrs={**trial.system_attrs, **{f"constraints:{key}": over for key, over in trial.excess.items()}},
    )


def _around_likely(space: Space, draw: np.random.Generator, fixed: Mapping[str, Value], *, far: bool) -> Suggestion:
    """Draw around the likely values: near them first, then twice as far, so that a bad guess can be left."""
    values: dict[str, Any] = {}
    params: dict[str, Value] = {}
    for param in space.params:
        if param.active(values):
            value = fixed[param.name] if param.name in fixed else _draw(param, draw, SPREAD * (2 if far else 1))
            values[param.key] = params[param.name] = value
    return Suggestion(params, _distributions(space, params), {}, {})


def _draw(param: Param, draw: np.random.Generator, spread: float) -> Value:
    if param.choices:
        if param.likely is not None and draw.random() < 0.5:
            return param.likely
        return param.choices[int(draw.integers(len(param.choices)))]
    if param.likely is None:
        return param.at(draw.random())
    assert not isinstance(param.likely, str)
    centre = param.place(param.likely)
    while True:
        place = float(centre + spread * draw.standard_normal())
        # The ends are values like others, unless one is itself the likely value, as where 0 is off.
        if 0.0 < place < 1.0 or centre in (0.0, 1.0):
            return param.at(place)
