"""What a search found: the best trial as a recipe, and the facts of its report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from flyweight.data.dataset import Dataset
from flyweight.report.facts import Conditions
from flyweight.report.tuning import ChoiceFacts, ParamFacts, RungFacts, RungResult, TrialFacts, TuningFacts
from flyweight.runtime.environment import environment
from flyweight.train.recipe import Recipe
from flyweight.tune.brackets import rank
from flyweight.tune.edges import edges
from flyweight.tune.forecast import predicted_seconds
from flyweight.tune.search import Search
from flyweight.tune.space import keys_of
from flyweight.tune.suggest import as_study, directions_of
from flyweight.tune.trials import (
    BRACKET,
    CAUSE,
    COSTS,
    DEATHS,
    NO_BRACKET,
    RECIPE,
    entrants_of,
    expected_of,
    leaders_of,
    rungs_of,
    seen_of,
)

LEAST_FOR_IMPORTANCE = 8

Status = Literal["finished", "stopped", "over budget", "failed", "running"]


def best_trial(search: Search, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the trial that is best in the metric at full length, reached or expected; None where none came far enough.

    Far enough is the rung before the full one.
    """
    return next(iter(leaders_of(search, trials)), None)


def best_recipe(search: Search, trials: Sequence[FrozenTrial]) -> Recipe | None:
    """Return the recipe of the best trial, named after the search, with what it gave; None where there is none."""
    best = best_trial(search, trials)
    if best is None:
        return None
    gave = f"{_gave(search, trials, best)}, trial {best.number} of the search {search.name}, chosen by this number"
    recipe = search.trial_recipe(keys_of(search.space.params, best.params))
    return recipe.model_copy(update={"expected": {f"{search.metric} on validation": gave}})


def _gave(search: Search, trials: Sequence[FrozenTrial], best: FrozenTrial) -> str:
    results = rungs_of(search, best)
    last = max(results)
    if last == search.full:
        return f"{100 * results[last]['score']:.2f} %"
    expected = 100 * (expected_of(search, trials, best.number) or 0.0)
    return f"{expected:.2f} % expected, {100 * results[last]['score']:.2f} % after {results[last]['images']:,} images"


def facts_of(
    search: Search, dataset: Dataset, trials: Sequence[FrozenTrial], *, ended: str = "", command: str = ""
) -> TuningFacts:
    """Return what the report of the search says, as far as it has come."""
    best = best_trial(search, trials)
    order = _fronts(search, _finals(search, trials))
    rows = tuple(_trial_facts(search, trial) for trial in trials)
    return TuningFacts(
        title=f"{search.name}: {search.recipe.name} tuned on {dataset.name}",
        data=f"{dataset.name}, {len(dataset):,} images, {len(dataset.classes)} classes",
        objectives=(search.metric, *search.costs),
        rungs=tuple(
            RungFacts(epochs=rung.epochs, share=rung.share, image_size=rung.image_size, images=rung.images)
            for rung in search.ladder
        ),
        params=_params(search, trials),
        trials=rows,
        best=None if best is None else best.number,
        best_expected=None if best is None else expected_of(search, trials, best.number),
        front=order if search.costs else (),
        choices=_choices(search, trials),
        edges=edges(search, leaders_of(search, trials)),
        image_passes=sum(row.images for row in rows),
        full_passes=search.ladder[-1].images,
        train_seconds=sum(result.seconds for row in rows for result in row.results),
        predicted_seconds=predicted_seconds(search),
        ended=ended,
        recipe="" if best is None else str(search.out / RECIPE),
        conditions=_conditions(search, dataset, command),
    )


def _finals(search: Search, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return those trained in full, best in the metric first."""
    full = [trial for trial in trials if search.full in rungs_of(search, trial)]
    return sorted(full, key=lambda trial: (-rungs_of(search, trial)[search.full]["score"], trial.number))


def _fronts(search: Search, finals: Sequence[FrozenTrial]) -> tuple[int, ...]:
    """Return the numbers of the finished trials that no other beats in every objective."""
    entrants = {entrant.number: entrant for entrant in entrants_of(search, finals)}
    scores = [entrants[trial.number].scores[search.full] for trial in finals]
    kept = []
    for index in rank(scores):
        mine = scores[index]
        beaten = any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in scores)
        if not beaten:
            kept.append(finals[index].number)
    return tuple(sorted(kept))


def _trial_facts(search: Search, trial: FrozenTrial) -> TrialFacts:
    results = [
        RungResult(rung=rung, **{key: found[key] for key in ("score", "images", "seconds", "done")})
        for rung, found in sorted(rungs_of(search, trial).items())
    ]
    return TrialFacts(
        number=trial.number,
        values=keys_of(search.space.params, trial.params),
        status=_status(trial),
        results=tuple(results),
        costs=dict(trial.user_attrs.get(COSTS, {})),
        cause=trial.user_attrs.get(CAUSE, ""),
        deaths=len(trial.user_attrs.get(DEATHS, ())),
    )


def _status(trial: FrozenTrial) -> Status:
    if trial.state is TrialState.PRUNED and trial.user_attrs.get(BRACKET) == NO_BRACKET:
        return "over budget"
    named: Mapping[TrialState, Status] = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "stopped",
        TrialState.FAIL: "failed",
    }
    return named.get(trial.state, "running")


def _choices(search: Search, trials: Sequence[FrozenTrial]) -> tuple[ChoiceFacts, ...]:
    names = [param.name for param in search.space.scientific]
    if not names:
        return ()
    groups: dict[tuple[Any, ...], list[FrozenTrial]] = {}
    for trial in trials:
        if trial.user_attrs.get(BRACKET, NO_BRACKET) != NO_BRACKET:
            groups.setdefault(tuple(trial.params[name] for name in names), []).append(trial)
    found = []
    for values, members in groups.items():
        finals = _finals(search, members)
        found.append(
            ChoiceFacts(
                choice=dict(zip((param.key for param in search.space.scientific), values, strict=True)),
                trials=len(members),
                best=finals[0].number if finals else None,
                score=rungs_of(search, finals[0])[search.full]["score"] if finals else None,
            )
        )
    return tuple(sorted(found, key=lambda one: -(one.score or 0.0)))


def _params(search: Search, trials: Sequence[FrozenTrial]) -> tuple[ParamFacts, ...]:
    known = _importances(search, trials)
    return tuple(
        ParamFacts(
            key=param.key,
            name=param.name,
            low=param.low,
            high=param.high,
            log=param.log,
            choices=param.choices,
            when=param.when,
            importance=known.get(param.name),
        )
        for param in search.space.params
    )


def _importances(search: Search, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return PED-ANOVA's importance of the values that all trials have (arXiv:2304.10255); {} with few, or ties."""
    seen = [one for one in seen_of(search, trials) if one.values is not None and not one.infeasible]
    if len(seen) < LEAST_FOR_IMPORTANCE:
        return {}
    study = as_study(search.space, seen, directions_of([search.metric, *search.costs]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        # The evaluator asks what makes its target small.
        target = (lambda trial: -trial.values[0]) if search.costs else None
        found = optuna.importance.get_param_importances(study, target=target)
    if any("importances will be equal" in str(one.message) for one in said):  # ties: it cannot tell
        return {}
    return {name: float(value) for name, value in found.items()}


def _conditions(search: Search, dataset: Dataset, command: str) -> Conditions:
    here = environment()
    return Conditions(
        machine=f"{here['cpu']} ({here['machine']})",
        os=here["os"],
        cores=here["cores"],
        memory_bytes=here["memory_bytes"],
        versions={**here["versions"], "python": here["python"], "optuna": optuna.__version__},
        seeds=(search.seed,),
        data_fingerprint=dataset.fingerprint(),
        command=command or here["command"],
        date=here["date"],
        details={
            "search space": search.space.name,
            "sampler": search.sampler,
            "budget": search.budget.text or "none",
            "judged on": "validation images; the test part stays sealed",
        },
    )


def write_recipe(search: Search, trials: Sequence[FrozenTrial]) -> Path | None:
    """Write the best recipe into the folder of the search; None where there is none."""
    recipe = best_recipe(search, trials)
    if recipe is None:
        return None
    path = search.out / RECIPE
    recipe.save(path)
    return path
