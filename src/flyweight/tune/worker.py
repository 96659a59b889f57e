"""What a worker of a search does: decide with the others what comes next, train it, write down what it gave.

Any number of processes call `work` with the same search. Killed anywhere, each trial goes on from its last checkpoint;
on another machine, whose folder has none, that training begins again with the same values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from flyweight.data.dataset import Dataset
from flyweight.errors import BudgetError, ExportError, FlyweightError, ModelError, RecipeError, TrainingError
from flyweight.measure.accuracy import METRICS, score
from flyweight.report.cost import seconds_of
from flyweight.train.answers import validation_logits
from flyweight.train.loop import EpochDone
from flyweight.train.run import HISTORY, Finished, run
from flyweight.train.trained import Trained
from flyweight.tune.brackets import Add, Done, Step, Train, Wait, next_step, stopped
from flyweight.tune.deaths import bury, epochs_here
from flyweight.tune.search import Search
from flyweight.tune.space import Value, keys_of
from flyweight.tune.spent import Watch
from flyweight.tune.stop import unlikely_to_improve
from flyweight.tune.store import Store
from flyweight.tune.suggest import STATE, Seen, Suggestion, directions_of, distribution, suggest
from flyweight.tune.trials import (
    BRACKET,
    CAUSE,
    COSTS,
    DISTURBED,
    EXCESS,
    FAILED,
    NO_BRACKET,
    WEIGHING,
    entrants_of,
    rung_key,
    seen_of,
    trial_folder,
)
from flyweight.tune.weigh import Costs, excess, weigh_recipe

WAIT_SECONDS = 1.0
REPEATS = 20  # suggestions in a row that repeat an earlier trial: the space is searched
# Of one combination, not of the search: the last two are torch's and Python's, of a network too large, say.
UNTRAINABLE = (RecipeError, ModelError, ExportError, TrainingError, RuntimeError, MemoryError)
NONE_FITS = 40  # infeasible ones with no feasible one before: nothing in the space keeps the budget


@dataclass(frozen=True)
class Looking:
    """Nothing of this worker's own to do: it waits for others, or has trained an epoch of `step`."""

    step: Train | None


def work(search: Search, dataset: Dataset, store: Store, *, until: float | None = None) -> Iterator[Train | Looking]:
    """Take part in a search until nothing is left to do; yield each piece of training when it is done.

    Args:
        until: Wall-clock time (`time.time`) after which no further trial begins; None: no such time.

    Raises:
        BudgetError: Nothing in the space keeps the budget.
        OutputError: The disk or the database cannot be written.
    """
    while True:
        with store.deciding():
            step = _decide(search, dataset, store, until)
        if isinstance(step, Done):
            return
        if isinstance(step, Wait):
            yield Looking(None)
            time.sleep(WAIT_SECONDS)
            continue
        assert isinstance(step, Train)
        try:
            yield from _train(search, dataset, store, step)
        finally:
            store.release(step.work)


def _decide(search: Search, dataset: Dataset, store: Store, until: float | None) -> Step:
    """Return what this worker does next, claimed for it; the caller holds the lock."""
    while True:
        claimed = bury(search, store)
        trials = store.trials()
        entrants = entrants_of(search, trials)
        _settle(search, store, trials)
        more = (until is None or time.time() < until) and len(entrants) < search.trials
        step = next_step(search.shapes, entrants, claimed, more=more)
        begun = any(isinstance(step, Add) and one.bracket == step.bracket for one in entrants)
        if isinstance(step, Add) and not begun and _enough(search, trials):
            step = next_step(search.shapes, entrants, claimed, more=False)
        if isinstance(step, Add) and not _add(search, dataset, store, trials, step.bracket):
            step = next_step(search.shapes, entrants, claimed, more=False)
        if isinstance(step, Train):
            taken = store.claim(step.work)
            assert taken, "the lock is held, and the work was free"
        if isinstance(step, Done):
            _settle(search, store, store.trials(), cut_short=True)
        if not isinstance(step, Add):
            return step


def _enough(search: Search, trials: list[FrozenTrial]) -> bool:
    return search.margin is not None and unlikely_to_improve(search.space, seen_of(search, trials), search.margin)


def _settle(search: Search, store: Store, trials: list[FrozenTrial], *, cut_short: bool = False) -> None:
    """Set the state of trials that are at their end: left behind, or trained in full.

    Args:
        cut_short: True at the end of the search: those of a bracket that was not filled are left behind too.
    """
    entrants = entrants_of(search, trials)
    left = set(stopped(search.shapes, entrants))
    for entrant in entrants:
        if trials[entrant.number].state.is_finished():
            continue
        if search.full in entrant.scores:
            metric, *costs = entrant.scores[search.full]
            store.end(entrant.number, TrialState.COMPLETE, [metric, *(-cost for cost in costs)])
        elif entrant.number in left or cut_short:
            store.end(entrant.number, TrialState.PRUNED)


def _add(search: Search, dataset: Dataset, store: Store, trials: list[FrozenTrial], bracket: int) -> bool:
    """Add a trial to a bracket, or one that breaks the budget and is in none; False where the space is searched.

    Raises:
        BudgetError: Nothing has kept the budget so far.
    """
    found = _new_values(search, trials, bracket)
    if found is None:
        return False
    values = keys_of(search.space.params, found.params)
    attributes: dict[str, Any] = {STATE: found.state, BRACKET: bracket}
    state, number, start = TrialState.RUNNING, len(trials), time.monotonic()
    try:
        recipe = search.trial_recipe(values)
        weighed = weigh_recipe(search, dataset, recipe) if search.weighs else Costs({}, disturbed=False)
    except UNTRAINABLE as error:
        attributes |= {BRACKET: NO_BRACKET, CAUSE: _cause(error)}
        state = TrialState.FAIL
    else:
        costs = weighed.values
        over = excess(search.budget, costs)
        attributes |= {COSTS: costs, EXCESS: over, DISTURBED: weighed.disturbed}
        if any(value > 0 for value in over.values()):
            attributes[BRACKET] = NO_BRACKET
            state = TrialState.PRUNED
            _refuse_hopeless(search, trials, costs)
    attributes |= {WEIGHING: time.monotonic() - start} if search.weighs else {}
    constraints = {f"constraints:{key}": value for key, value in attributes.get(EXCESS, {}).items()}
    added = store.add(
        create_trial(
            state=state,
            params=found.params,
            distributions=found.distributions,
            user_attrs=attributes,
            system_attrs={**found.system_attrs, **constraints},
        )
    )
    assert added == number, "the lock is held"
    return True


def _new_values(search: Search, trials: list[FrozenTrial], bracket: int) -> Suggestion | None:
    """Return what the next trial has: of the queue first, then of the sampler; None where all was tried."""
    queued = _queued(search, len(trials))
    if queued is not None:
        return queued
    known = {repr(sorted(trial.params.items())) for trial in trials}
    seen, fixed = seen_of(search, trials), scientific_values(search, bracket)
    state = trials[-1].user_attrs.get(STATE) if trials else None
    for again in range(REPEATS + len(search.queue)):
        sampler = search.sampler if again == 0 or search.sampler == "grid" else "random"
        found = suggest(
            search.space,
            sampler,
            seen,
            seed=search.seed + 1_000_003 * again,
            directions=directions_of([search.metric, *search.costs]),
            fixed=fixed,
            state=state,
        )
        if repr(sorted(found.params.items())) not in known:
            return found
        if search.sampler == "grid":  # a point that the queue had: as one that is being trained, the next is another
            seen = [*seen, Seen(found.params, None, system_attrs=found.system_attrs)]
    return None


def _queued(search: Search, number: int) -> Suggestion | None:
    if number >= len(search.queue):
        return None
    values = search.queue[number]
    active = search.space.active(values)
    return Suggestion(
        {param.name: values[param.key] for param in active},
        {param.name: distribution(param) for param in active},
        {},
        {},
    )


def scientific_values(search: Search, bracket: int) -> dict[str, Value]:
    """Return the scientific values of a bracket, by name: each combination has brackets of its own, in turn."""
    turn = bracket // len(search.shapes)
    fixed: dict[str, Value] = {}
    for param in search.space.scientific:
        turn, place = divmod(turn, len(param.choices))
        fixed[param.name] = param.choices[place]
    return fixed


def _refuse_hopeless(search: Search, trials: list[FrozenTrial], costs: Mapping[str, float | None]) -> None:
    if len(trials) + 1 < NONE_FITS or any(trial.user_attrs.get(BRACKET) != NO_BRACKET for trial in trials):
        return
    broken = [check for check in search.budget.check(costs) if check.status == "violated"]
    raise BudgetError(
        f"none of {NONE_FITS} trials keeps the budget {search.budget.text!r}; the last: "
        + ", ".join(f"{check.metric} {check.shown_value} where {check.shown_limit} are allowed" for check in broken),
        do="loosen the budget, or give the space smaller networks (model.name, model.args.width, data.image_size)",
    )


def _train(search: Search, dataset: Dataset, store: Store, step: Train) -> Iterator[Train | Looking]:
    """Train a trial on a rung and write its result; give up silently where another took the claim over."""
    trial = store.trials()[step.number]
    values = keys_of(search.space.params, trial.params)
    rung = search.ladder[step.rung]
    folder = trial_folder(search, step.number) / f"rung{step.rung}"
    trained: Trained | None = None
    with store.beating(step.work) as lost:
        store.beat(step.work, epochs_here(search, step.number, step.rung))
        watch = Watch(folder / HISTORY)
        try:
            recipe = rung.recipe(search.trial_recipe(values))
            for event in run(dataset, recipe, folder, device=search.device):
                if lost.is_set():
                    return
                if isinstance(event, Finished):
                    trained = event.trained
                elif isinstance(event, EpochDone):
                    store.beat(step.work, int(event.row["epoch"]))
                    watch.stop()
                    yield Looking(step)
                    watch.go_on()
            assert trained is not None
            gave = _score(search, dataset, trained)
        except UNTRAINABLE as error:
            store.note(step.number, CAUSE, _cause(error))
            store.note(step.number, FAILED, [*trial.user_attrs.get(FAILED, ()), watch.seconds()])
            store.end(step.number, TrialState.FAIL)
            return
        result: dict[str, Any] = {
            "score": gave,
            "val_accuracy": trained.metrics["val_accuracy"],
            "images": rung.images,
            "seconds": trained.metrics["train_seconds"],
            "own_seconds": seconds_of(trained.history),
            "done": time.time(),
        }
    store.report(step.number, rung.images, result["score"])
    store.note(step.number, rung_key(step.rung), result)
    yield step


def _cause(error: Exception) -> str:
    """Return why a trial failed, in one line."""
    if isinstance(error, FlyweightError):
        return error.what
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _score(search: Search, dataset: Dataset, trained: Trained) -> float:
    if search.metric == "accuracy":
        return trained.metrics["val_accuracy"]
    logits, labels = validation_logits(dataset, trained)
    return METRICS[search.metric](score(logits, labels, trained.classes))
