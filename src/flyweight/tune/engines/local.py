"""Workers as processes of this machine, each with its own core; a single one is this process itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from flyweight.errors import FlyweightError
from flyweight.tune.search import Search
from flyweight.tune.store import Owner, open_store
from flyweight.tune.trials import CAUSE
from flyweight.tune.worker import trial_folder, work

LOOK_SECONDS = 0.5
DEATHS = 3  # of workers at the same epoch of the same training, before the trial is given up


@dataclass
class _Worker:
    process: SpawnProcess
    owner: str


def run_workers(search: Search, *, jobs: int, until: float | None) -> Iterator[None]:
    """Yield now and then, until nothing is left to do.

    Raises:
        FlyweightError: What a worker raised; the others are ended.
    """
    if jobs > 1:
        yield from _run_processes(search, jobs, until)
        return
    for _ in _take_part(search, until):
        yield None


def _take_part(search: Search, until: float | None) -> Iterator[Any]:
    dataset = search.source.load()
    store = open_store(search.storage, search.name, facts=search.facts(dataset), directions=search.directions)
    yield from work(search, dataset, store, until=until)


def _run_processes(search: Search, jobs: int, until: float | None) -> Iterator[None]:
    """Yield every half second; a worker that dies is replaced, and what it was at goes on.

    A training at which workers die again and again without getting further is given up: the trial fails, with cause.
    """
    context = multiprocessing.get_context("spawn")
    errors: Any = context.Queue()
    workers = [_start(context, search, number, until, errors) for number in range(jobs)]
    deaths: dict[tuple[str, int], int] = {}
    store = open_store(search.storage, search.name, facts={}, directions=search.directions)
    try:
        while workers:
            time.sleep(LOOK_SECONDS)
            yield None
            with contextlib.suppress(queue.Empty):
                raise errors.get_nowait()
            for number, worker in enumerate(workers):
                if worker.process.exitcode in (None, 0):
                    continue
                _bury(search, store, worker, deaths)
                workers[number] = _start(context, search, number, until, errors)
            workers = [worker for worker in workers if worker.process.exitcode != 0]
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _start(context: SpawnContext, search: Search, number: int, until: float | None, errors: Any) -> _Worker:
    process = context.Process(target=_serve, args=(search, number, until, errors), name=f"worker-{number}")
    process.start()
    assert process.pid is not None
    return _Worker(process, str(Owner.of(process.pid)))


def _serve(search: Search, number: int, until: float | None, errors: Any) -> None:
    """Be a worker with a core of its own, and no life after the parent's."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _pin(number)
    try:
        serve(search, until)
    except FlyweightError as error:
        errors.put(error)
        errors.close()
        errors.join_thread()
    except KeyboardInterrupt:
        os._exit(0)


def serve(search: Search, until: float | None) -> None:
    """Take part in the search with one thread, until nothing is left to do. Raises what stops a worker."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for _ in _take_part(search, until):
        pass


def _pin(number: int) -> None:
    """Keep to one core, so that two workers never share one while another is free; where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _bury(search: Search, store: Any, worker: _Worker, deaths: dict[tuple[str, int], int]) -> None:
    """Count a death against what the worker was at; after `DEATHS` without progress the trial fails."""
    from optuna.trial import TrialState

    for claim, owner in store.all_claims().items():
        if str(owner) != worker.owner or "/" not in claim:
            continue
        number, rung = map(int, claim.split("/"))
        history = trial_folder(search, number) / f"rung{rung}" / "history.jsonl"
        epochs = len(history.read_text("utf-8").splitlines()) if history.is_file() else 0
        deaths[claim, epochs] = deaths.get((claim, epochs), 0) + 1
        if deaths[claim, epochs] >= DEATHS:
            cause = f"{DEATHS} workers died at it (exit code {worker.process.exitcode}), after {epochs} epochs"
            store.note(number, CAUSE, cause)
            store.end(number, TrialState.FAIL)
