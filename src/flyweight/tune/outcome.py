"""What a search found: the best trial and those of the front as recipes, and the facts of its report."""

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
from flyweight.tune.edges import edges
from flyweight.tune.forecast import predicted_seconds
from flyweight.tune.search import Search
from flyweight.tune.space import keys_of
from flyweight.tune.spent import cost_of, weighing
from flyweight.tune.suggest import as_study, directions_of
from flyweight.tune.trials import (
    BRACKET,
    CAUSE,
    COSTS,
    DEATHS,
    DISTURBED,
    NO_BRACKET,
    RECIPE,
    RECIPES,
    expected_of,
    front_file,
    rungs_of,
    seen_of,
)
from flyweight.tune.winners import best_first, front_of, in_full

LEAST_FOR_IMPORTANCE = 8

Status = Literal["finished", "stopped", "over budget", "failed", "running"]


def recipe_of(search: Search, trials: Sequence[FrozenTrial], chosen: FrozenTrial) -> Recipe:
    """Return the recipe of a trial at full length, named after the search, with what it gave."""
    gave = f"{_gave(search, trials, chosen)}, trial {chosen.number} of the search {search.name}, chosen by this number"
    recipe = search.trial_recipe(keys_of(search.space.params, chosen.params))
    return recipe.model_copy(update={"expected": {f"{search.metric} on validation": gave}})


def _gave(search: Search, trials: Sequence[FrozenTrial], chosen: FrozenTrial) -> str:
    results = rungs_of(search, chosen)
    last = max(results)
    if last == search.full:
        return f"{100 * results[last]['score']:.2f} %"
    expected = 100 * (expected_of(search, trials, chosen.number) or 0.0)
    return f"{expected:.2f} % expected, {100 * results[last]['score']:.2f} % after {results[last]['images']:,} images"


def facts_of(
    search: Search, dataset: Dataset, trials: Sequence[FrozenTrial], *, ended: str = "", command: str = ""
) -> TuningFacts:
    """Return what the report of the search says, as far as it has come.

    Args:
        ended: Why the search stopped; "" while it goes on, and has no recipes written.
    """
    order = best_first(search, trials)
    best = next(iter(order), None)
    front = tuple(trial.number for trial in front_of(search, trials))
    rows = tuple(_trial_facts(search, trial) for trial in trials)
    cost, (weighed, weighing_seconds) = cost_of(search, trials), weighing(trials)
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
        front=front,
        front_recipes=tuple(str(front_file(search.out, number)) for number in front) if ended else (),
        choices=_choices(search, trials),
        edges=edges(search, order),
        image_passes=sum(row.images for row in rows),
        full_passes=search.ladder[-1].images,
        train_seconds=cost.measured.loading + cost.measured.computing + cost.unsplit_seconds,
        cost=cost,
        weighed=weighed,
        weighing_seconds=weighing_seconds,
        predicted_seconds=predicted_seconds(search),
        ended=ended,
        recipe=str(search.out / RECIPE) if ended and best is not None else "",
        conditions=_conditions(search, dataset, command),
    )


def _trial_facts(search: Search, trial: FrozenTrial) -> TrialFacts:
    results = [
        RungResult(
            rung=rung,
            own_seconds=found.get("own_seconds"),
            **{key: found[key] for key in ("score", "images", "seconds", "done")},
        )
        for rung, found in sorted(rungs_of(search, trial).items())
    ]
    deaths = trial.user_attrs.get(DEATHS, ())
    return TrialFacts(
        number=trial.number,
        values=keys_of(search.space.params, trial.params),
        status=_status(trial),
        results=tuple(results),
        costs=dict(trial.user_attrs.get(COSTS, {})),
        disturbed=trial.user_attrs.get(DISTURBED, False),
        cause=trial.user_attrs.get(CAUSE, ""),
        deaths=len(deaths),
        died=tuple(dict.fromkeys(death["how"] for death in deaths if death.get("how"))),
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
        finals = in_full(search, members)
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


def write_recipes(search: Search, trials: Sequence[FrozenTrial]) -> Path | None:
    """Write the best recipe into the folder of the search, and those of the front beside it; None where there is none.

    Recipes of an earlier end of the search that are on the front no longer are removed.
    """
    front = {front_file(search.out, trial.number): trial for trial in front_of(search, trials)}
    for file, trial in front.items():
        recipe_of(search, trials, trial).save(file)
    for file in (search.out / RECIPES).glob("*.yaml"):
        if file not in front:
            file.unlink()
    best = next(iter(best_first(search, trials)), None)
    if best is None:
        return None
    path = search.out / RECIPE
    recipe_of(search, trials, best).save(path)
    return path
