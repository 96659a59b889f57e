"""When a search may end: the chance that more trials improve the result by the user's margin is small."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.study import StudyDirection
from optuna.terminator import RegretBoundEvaluator
from optuna.trial import create_trial

from flyweight.tune.axes import axes_of, placed
from flyweight.tune.space import Space
from flyweight.tune.suggest import Seen

LEAST_TRIALS = 20
GAINED = 0.5  # of the bound on the regret


def unlikely_to_improve(space: Space, seen: Sequence[Seen], margin: float) -> bool:
    """Return True where a Gaussian process on the trials so far says that less than `margin` is left to gain.

    It is asked for one objective, from `LEAST_TRIALS` feasible trials on. The bound on the regret is the width between
    the best that may lie anywhere and the worst that the best trial may in truth be. Only the first of the two can be
    gained by going on: the other is the noise of what is known already, and would keep the bound above any margin that
    is not several times the noise of one training, however many trials there are. So half of the bound is compared.

    Source: Makarova et al. 2022, arXiv:2104.08166 (the bound on the regret, in Optuna's form). Changed: half of it.
    """
    known = [trial for trial in seen if trial.values is not None and not trial.infeasible]
    if len(known) < LEAST_TRIALS or any(len(trial.values or ()) > 1 for trial in known):
        return False
    axes = axes_of(space)
    trials = [
        create_trial(
            params=placed(space, axes, trial.params), distributions=dict(axes), values=list(trial.values or ())
        )
        for trial in known
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        bound = RegretBoundEvaluator(seed=0).evaluate(trials, StudyDirection.MAXIMIZE)
    return GAINED * bound < margin
