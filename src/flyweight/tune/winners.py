"""Which trials a search hands out: the best, and with several objectives the front.

What was trained in full comes before what was left behind, however well that began: a short training's score at full
length is a guess (`leaders`), which decides what goes on and stands in until the first full training is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from flyweight.tune.search import Search
from flyweight.tune.trials import costs_of, expected_of, leaders_of, rungs_of


def in_full(search: Search, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return those trained in full, best in the metric first; of equal ones the one that costs least."""
    full = [trial for trial in trials if search.full in rungs_of(search, trial)]

    def place(trial: FrozenTrial) -> tuple[float, tuple[float, ...], int]:
        return -rungs_of(search, trial)[search.full]["score"], costs_of(search, trial), trial.number

    return sorted(full, key=place)


def best_first(search: Search, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return those trained in full, best first, then those that came as far as the rung before, best expected first."""
    finals = in_full(search, trials)
    done = {trial.number for trial in finals}
    left = [trial for trial in leaders_of(search, trials) if trial.number not in done]
    left.sort(key=lambda trial: (-(expected_of(search, trials, trial.number) or 0.0), costs_of(search, trial)))
    return finals + left


def front_of(search: Search, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that no other beats in every objective, by number; the best trial is always one of them.

    They are of those trained in full; where none was, of those that came as far as the rung before, by what is expected
    of them. With one objective there is no front: [].
    """
    if not search.costs:
        return []
    entered = in_full(search, trials) or best_first(search, trials)
    scores = [
        (expected_of(search, trials, trial.number) or 0.0, *(-cost for cost in costs_of(search, trial)))
        for trial in entered
    ]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in scores)

    kept = [trial for trial, mine in zip(entered, scores, strict=True) if not beaten(mine)]
    return sorted(kept, key=lambda trial: trial.number)
