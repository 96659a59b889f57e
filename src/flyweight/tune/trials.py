"""The trials of a search as its database has them, read as the schedule and the sampler see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from flyweight.tune.brackets import Entrant
from flyweight.tune.search import Search
from flyweight.tune.suggest import Seen, expected_at_full, leaders

BRACKET, COSTS, EXCESS, CAUSE, DEATHS = "bracket", "costs", "excess", "cause", "deaths"
FAILED, WEIGHING = "failed_seconds", "weighing_seconds"  # what a training that failed, and weighing, took
RECIPE, RECIPES = "recipe.yaml", "recipes"  # the best; those of the front
DISTURBED = "disturbed"  # its network was timed while other programs had the processor
NO_BRACKET = -1  # over budget, or impossible: never trained


def trial_folder(search: Search, number: int) -> Path:
    """Return the folder of a trial; its trainings lie in `rung0`, `rung1`, ..."""
    return recipe_file(search.out, number, 0).parent.parent


def recipe_file(out: Path, number: int, rung: int) -> Path:
    """Return the file that holds the recipe of a training of a search whose folder is `out`."""
    return out / "trials" / f"{number:04d}" / f"rung{rung}" / RECIPE


def front_file(out: Path, number: int) -> Path:
    """Return the file that holds the recipe of a trial of the front."""
    return out / RECIPES / f"{number:04d}.yaml"


def rung_key(rung: int) -> str:
    """Return the attribute that holds a trial's result of a rung: score, val_accuracy, images, seconds, own_seconds,
    done."""
    return f"rung{rung}"


def rungs_of(search: Search, trial: FrozenTrial) -> dict[int, dict[str, Any]]:
    """Return a trial's results by rung."""
    found = {rung: trial.user_attrs.get(rung_key(rung)) for rung in range(len(search.ladder))}
    return {rung: result for rung, result in found.items() if result is not None}


def costs_of(search: Search, trial: FrozenTrial) -> tuple[float, ...]:
    """Return the costs that are objectives, in their order."""
    known = trial.user_attrs.get(COSTS, {})
    return tuple(float(known[name]) for name in search.costs)


def entrants_of(search: Search, trials: Sequence[FrozenTrial]) -> list[Entrant]:
    """Return the trials that are, or were, to be trained."""
    return [
        Entrant(
            number=trial.number,
            bracket=trial.user_attrs[BRACKET],
            scores={
                rung: (result["score"], *(-cost for cost in costs_of(search, trial)))
                for rung, result in rungs_of(search, trial).items()
            },
            failed=trial.state is TrialState.FAIL,
            ended=trial.state in (TrialState.PRUNED, TrialState.COMPLETE),
        )
        for trial in trials
        if trial.user_attrs.get(BRACKET, NO_BRACKET) != NO_BRACKET
    ]


def seen_of(search: Search, trials: Sequence[FrozenTrial]) -> list[Seen]:
    """Return every trial as the sampler sees it; one that failed as the worst so far, so that it is not tried again."""
    expected = expected_at_full(scores_of(search, trials), search.full)
    worst = min((value for value in expected if value is not None), default=0.0)
    found = []
    for trial, value in zip(trials, expected, strict=True):
        if trial.state is TrialState.FAIL:
            value = worst
        known = None if value is None or not _has_costs(search, trial) else (value, *costs_of(search, trial))
        attributes = {key: one for key, one in trial.system_attrs.items() if not key.startswith("constraints")}
        found.append(Seen(trial.params, known, trial.user_attrs.get(EXCESS, {}), attributes))
    return found


def scores_of(search: Search, trials: Sequence[FrozenTrial]) -> list[dict[int, float]]:
    """Return the metric of each trial by rung."""
    return [{rung: result["score"] for rung, result in rungs_of(search, trial).items()} for trial in trials]


def leaders_of(search: Search, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that came as far as the rung before the full one and did not fail, the best first."""
    found = [trials[index] for index in leaders(scores_of(search, trials), search.full)]
    return [trial for trial in found if trial.state is not TrialState.FAIL]


def expected_of(search: Search, trials: Sequence[FrozenTrial], number: int) -> float | None:
    """Return what a trial reached at full length, or would have; None where nothing of it is trained."""
    return expected_at_full(scores_of(search, trials), search.full)[number]


def _has_costs(search: Search, trial: FrozenTrial) -> bool:
    return not search.costs or COSTS in trial.user_attrs
