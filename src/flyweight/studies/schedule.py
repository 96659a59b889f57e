"""Run the trials of a study in worker processes of one thread each; what is finished is never run again."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.errors import FlyweightError, TrainingError
from flyweight.runtime.process import end_with_parent
from flyweight.studies.made_by import check_code
from flyweight.studies.study import Scale, Study, Trial
from flyweight.studies.trial import RUN, TRIES, Place, claim, run_trial

LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Running:
    """Nothing new: what is being trained, each with its epochs done (of its own search too)."""

    trials: tuple[tuple[Trial, int], ...]


@dataclass(frozen=True)
class TrialDone:
    """A trial is finished, now or in an earlier call (`again`); where it diverged, those that need it are left out."""

    trial: Trial
    result: dict[str, Any]
    again: bool


@dataclass(frozen=True)
class TrialFailed:
    """A trial ended with an error; those that need it are left out. The next call tries again."""

    trial: Trial
    error: FlyweightError


TrialEvent = Running | TrialDone | TrialFailed


def run_trials(study: Study, scale: Scale, order: list[Trial], place: Place, *, jobs: int) -> Iterator[TrialEvent]:
    """Run what is not finished, `jobs` at a time, each as soon as what it needs is there.

    Stopping the iteration (Ctrl-C) ends the workers at once; each trial continues from its last checkpoint.
    """
    claim(study, scale, place)
    check_code(study, order, place)
    waiting: list[Trial] = []
    done: set[Trial] = set()
    for trial in order:
        result = place.result(trial)
        if result is None:
            waiting.append(trial)
        else:
            done |= _usable(trial, result)
            yield TrialDone(trial, result, again=True)
    if not waiting:
        return
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread)
    running: dict[Future[dict[str, Any]], Trial] = {}
    try:
        while waiting or running:
            for trial in [trial for trial in waiting if _ready(study, trial, done)][: jobs - len(running)]:
                waiting.remove(trial)
                try:
                    running[pool.submit(run_trial, study, scale, trial, place)] = trial
                except BrokenProcessPool as error:  # a worker died since the last look
                    raise _worker_died(trial) from error
            if not running:  # the rest needs what failed or diverged
                return
            finished, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in finished:
                event = _outcome(running.pop(future), future)
                if isinstance(event, TrialDone):
                    done |= _usable(event.trial, event.result)
                yield event
            if not finished:
                yield Running(tuple((trial, _epochs_done(place, trial)) for trial in running.values()))
    finally:
        if running:  # stopped, by Ctrl-C or an error: end the workers at once
            for process in list((pool._processes or {}).values()):
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _ready(study: Study, trial: Trial, done: set[Trial]) -> bool:
    return all(Trial(trial.seed, trial.dataset, name) in done for name in study.arms[trial.arm].needs)


def _usable(trial: Trial, result: dict[str, Any]) -> set[Trial]:
    return set() if "diverged" in result else {trial}


def _outcome(trial: Trial, future: Future[dict[str, Any]]) -> TrialDone | TrialFailed:
    try:
        return TrialDone(trial, future.result(), again=False)
    except FlyweightError as error:
        return TrialFailed(trial, error)
    except BrokenProcessPool as error:
        raise _worker_died(trial) from error


def _worker_died(trial: Trial) -> TrainingError:
    return TrainingError(
        f"a worker process died while {trial.name} was run, or was to be",
        do="run the same command again: it continues; with less memory to spare, use --jobs 1",
    )


def _epochs_done(place: Place, trial: Trial) -> int:
    histories = [*place.of(trial).glob(f"{TRIES}/*/history.jsonl"), place.of(trial) / RUN / "history.jsonl"]
    return sum(_lines(history) for history in histories)


def _lines(file: Path) -> int:
    try:
        return len(file.read_text("utf-8").splitlines())
    except OSError:
        return 0


def one_thread() -> None:
    """Prepare a worker: one thread, and no life after its parent's."""
    end_with_parent()
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
