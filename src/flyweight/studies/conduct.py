"""A study from beginning to end: its cost foretold, its trials run, its page while they run, its files side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import FlyweightError, TrainingError
from flyweight.files import write_text
from flyweight.report.stability import csv_map
from flyweight.report.study import RunningFacts, StudyFacts, build_study_report
from flyweight.report.tables import csv_table, latex_table
from flyweight.runtime.energy import EnergyMeter, add_energy
from flyweight.studies.analyse import analyse
from flyweight.studies.deployed import measure_deployed
from flyweight.studies.forecast import Forecast, foresee
from flyweight.studies.schedule import Running, TrialDone, TrialEvent, TrialFailed, run_trials
from flyweight.studies.study import Scale, Study, Trial, recipe_of
from flyweight.studies.trial import CLAIM, Place, load_part

PAGE_SECONDS = 15.0  # between two drawings of the page while the study runs


@dataclass(frozen=True)
class Note:
    """A word on what is done now."""

    text: str


@dataclass(frozen=True)
class Measuring:
    """The files are timed side by side: so many of the processes have ended."""

    done: int
    total: int


Event = Note | Forecast | TrialEvent | Measuring


@dataclass(frozen=True)
class Conducted:
    """What a study found, its page, and why runs of it failed; those that did not are in both."""

    facts: StudyFacts
    html: Path
    errors: tuple[FlyweightError, ...] = ()


def conduct(
    study: Study,
    scale: str,
    size: Scale,
    order: Sequence[Trial],
    place: Place,
    *,
    jobs: int,
    tell: Callable[[Event], None] = lambda event: None,
) -> Conducted:
    """Run every trial that is not finished, then measure the files where networks are compared.

    The page is drawn again after every run; `report.json`, and where they apply `table.csv`, `table.tex` and `map.csv`,
    stand beside it.

    Args:
        tell: Called with each event as it happens.

    Raises:
        DataError: A data set cannot be read; the folder is then as it was.
        RecipeError: The folder holds another study.
        TrainingError: A worker died.
        OutputError: The folder cannot be written.
    """
    if not (place.out / CLAIM).is_file():
        _look_at_data(study, size, order, place)
    tell(foresee(study, size, order, place, say=lambda text: tell(Note(text))))
    errors = _run(study, scale, size, order, place, jobs=jobs, tell=tell)
    if study.compare and not errors:
        tell(Note("measuring the files side by side"))
        measure_deployed(
            study, order, place, quick=size.quick, progress=lambda done, total: tell(Measuring(done, total))
        )
    facts = analyse(study, scale, order, place)
    files = build_study_report(facts, place.out)
    if study.compare:
        write_text(place.out / "table.csv", csv_table(facts))
        write_text(place.out / "table.tex", latex_table(facts))
    if facts.maps:
        write_text(place.out / "map.csv", csv_map(facts.maps))
    return Conducted(facts, files.html, tuple(errors))


def _look_at_data(study: Study, size: Scale, order: Sequence[Trial], place: Place) -> None:
    """Open each data set before the folder is taken for this study."""
    first = {trial.dataset: trial for trial in reversed(order)}
    for trial in first.values():
        load_part(study, size, trial, recipe_of(study, size, trial), place)


def _run(
    study: Study,
    scale: str,
    size: Scale,
    order: Sequence[Trial],
    place: Place,
    *,
    jobs: int,
    tell: Callable[[Event], None],
) -> list[FlyweightError]:
    """Run the trials, and draw the page as they end; return what went wrong with some."""
    errors, energy, pace = [], EnergyMeter(), Pace(study, size, len(order))
    drawn = 0.0
    try:
        for event in run_trials(study, size, list(order), place, jobs=jobs):
            pace.see(event)
            tell(event)
            if isinstance(event, TrialFailed):
                errors.append(event.error)
            energy.joules()  # often enough that no counter wraps twice
            finished = isinstance(event, TrialDone) and not event.again
            due = isinstance(event, Running) and time.monotonic() - drawn >= PAGE_SECONDS
            if finished or due:
                build_study_report(analyse(study, scale, order, place, pace.facts(event)), place.out)
                drawn = time.monotonic()
    except (KeyboardInterrupt, TrainingError):  # stopped: the page is not to wait for what does not come
        build_study_report(analyse(study, scale, order, place), place.out)
        raise
    finally:
        if pace.fresh:
            add_energy(place.out, energy.joules(), pace.seconds)
    return errors


class Pace:
    """How far a study is, and how fast it goes.

    Attributes:
        done: Trials that are at their end, however it was.
        fresh: Those of them that this call trained.
    """

    def __init__(self, study: Study, size: Scale, total: int) -> None:
        self.study, self.size, self.total = study, size, total
        self.done, self.fresh, self.started = 0, 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this call so far."""
        return time.monotonic() - self.started

    def see(self, event: object) -> None:
        """Count a trial that has ended."""
        self.done += isinstance(event, TrialDone | TrialFailed)
        self.fresh += isinstance(event, TrialDone) and not event.again

    def epochs(self, trial: Trial) -> int:
        """Return how many epochs a trial has, its own search included; 0 where that is known only once it starts."""
        arm = self.study.arms[trial.arm]
        if arm.cost:
            return 0
        tune = len(arm.tune.tries) * arm.tune.epochs if arm.tune else 0
        return tune + recipe_of(self.study, self.size, trial).total_epochs

    def facts(self, event: TrialEvent) -> RunningFacts | None:
        """Return what the page says of a running study; None at its end."""
        if self.done >= self.total:
            return None
        left = self.seconds / self.fresh * (self.total - self.done) if self.fresh else None
        running = event.trials if isinstance(event, Running) else ()
        rows = tuple((trial.name, done, max(self.epochs(trial), done, 1)) for trial, done in running)
        return RunningFacts(done=self.done, total=self.total, running=rows, seconds_left=left)
