"""A search from beginning to end: its workers, its page while they work, and the recipe they find."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from flyweight.data.dataset import Dataset
from flyweight.errors import FlyweightError
from flyweight.report.tuning import TuningFacts, build_tuning_report
from flyweight.runtime.energy import EnergyMeter, add_energy, looked_at
from flyweight.tune.engines import load_engine, run_workers
from flyweight.tune.forecast import foresee, in_words
from flyweight.tune.outcome import facts_of, write_recipes
from flyweight.tune.search import Search
from flyweight.tune.spent import ended_trainings
from flyweight.tune.store import Store, open_store

PAGE_SECONDS = 15.0  # between two drawings of the page


def conduct(
    search: Search,
    dataset: Dataset,
    *,
    engine: str = "local",
    jobs: int = 1,
    minutes: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[TuningFacts]:
    """Say what it will cost, then run the workers; yield what is known each time the page is drawn.

    The last time the recipes are written.

    Args:
        engine: local or ray.
        jobs: Workers, one core each.
        minutes: Begin no trial after so many.
        say: Told what the search will cost, before anything is trained.

    Raises:
        RecipeError: The study was begun with other data, another recipe, space or code.
        TrainingError: No training of the search can be run.
        OutputError: The folder or the database cannot be written.
    """
    load_engine(engine)
    store = open_store(search.storage, search.name, facts=search.facts(dataset), directions=search.directions)
    forecast = foresee(search, dataset, say)
    if say:
        for line in in_words(forecast, jobs):
            say(line)
    until = None if minutes is None else time.time() + 60 * minutes
    drawn = 0.0
    try:
        with _metered(search, store):
            for _ in run_workers(engine, search, jobs=jobs, until=until):
                if time.monotonic() - drawn > PAGE_SECONDS:
                    facts = facts_of(search, dataset, store.trials())
                    build_tuning_report(facts, search.out)
                    yield facts
                    drawn = time.monotonic()
        ended = _why(search, store.trials(), until)
    except (KeyboardInterrupt, FlyweightError):
        with contextlib.suppress(FlyweightError):  # what stopped it is what is said
            write_recipes(search, store.trials())
            facts = facts_of(search, dataset, store.trials(), ended="Stopped; the same command continues.")
            build_tuning_report(facts, search.out)
        raise
    write_recipes(search, store.trials())
    facts = facts_of(search, dataset, store.trials(), ended=ended)
    build_tuning_report(facts, search.out)
    yield facts


@contextlib.contextmanager
def _metered(search: Search, store: Store) -> Iterator[None]:
    """Write down the energy of this call, where any training came to its end in it."""
    before, start = ended_trainings(search, store.trials()), time.monotonic()
    with looked_at(EnergyMeter()) as energy:
        try:
            yield
        finally:
            if ended_trainings(search, store.trials()) > before:
                add_energy(search.out, energy.joules(), time.monotonic() - start)


def _why(search: Search, trials: Sequence[object], until: float | None) -> str:
    if len(trials) >= search.trials:
        return f"Ended: all {search.trials} trials are at their end."
    if until is not None and time.time() > until:
        return "Ended: the time is over; the same command with more minutes continues."
    if search.margin is not None:
        return f"Ended: a gain of {100 * search.margin:g} points has become unlikely, or the space is searched."
    return "Ended: every combination of the space is tried."
