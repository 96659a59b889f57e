"""Workers as processes of this machine, each with its own core; a single one is this process itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from flyweight.errors import FlyweightError
from flyweight.runtime.cores import pin
from flyweight.runtime.process import end_with_parent, exit_in_words
from flyweight.tune.deaths import How, Patience, bury, explain, how_it_ended
from flyweight.tune.search import Search
from flyweight.tune.store import open_store
from flyweight.tune.worker import work

LOOK_SECONDS = 0.5


def run_workers(search: Search, *, jobs: int, until: float | None) -> Iterator[None]:
    """Yield now and then, until nothing is left to do.

    Raises:
        TrainingError: Workers die again and again, and nothing is finished.
        FlyweightError: What a worker raised; the others are ended.
    """
    if jobs > 1:
        yield from _run_processes(search, jobs, until)
        return
    for _ in _take_part(search, until, time.time()):
        yield None


def _take_part(search: Search, until: float | None, began: float) -> Iterator[Any]:
    dataset, directions = search.source.load(), search.directions
    store = open_store(search.storage, search.name, facts=search.facts(dataset), directions=directions, began=began)
    yield from work(search, dataset, store, until=until)


def _run_processes(search: Search, jobs: int, until: float | None) -> Iterator[None]:
    """Yield every half second; a worker that dies is replaced, and what it was at goes on."""
    context = multiprocessing.get_context("spawn")
    errors: Any = context.Queue()
    store, patience = open_store(search.storage, search.name, facts={}, directions=search.directions), Patience()
    workers = [_start(context, search, number, until, store.began, errors) for number in range(jobs)]
    try:
        while workers:
            time.sleep(LOOK_SECONDS)
            yield None
            with contextlib.suppress(queue.Empty):
                raise errors.get_nowait()
            for number, worker in enumerate(workers):
                code = worker.exitcode
                if not code:  # it is at work, or is done
                    continue
                how = _ended(worker.pid, exit_in_words(code))
                with store.deciding():
                    bury(search, store, how)
                    explain(store, how)
                patience.died(search, store.trials(), exit_in_words(code))
                workers[number] = _start(context, search, number, until, store.began, errors)
            workers = [worker for worker in workers if worker.exitcode != 0]
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _ended(pid: int | None, words: str) -> How:
    """Return how workers ended: the one that this command has waited for, and any that it has not."""
    return lambda owner: words if owner.here and owner.pid == pid else how_it_ended(owner)


def _start(
    context: SpawnContext, search: Search, number: int, until: float | None, began: float, errors: Any
) -> SpawnProcess:
    process = context.Process(target=_serve, args=(search, number, until, began, errors), name=f"worker-{number}")
    process.start()
    return process


def _serve(search: Search, number: int, until: float | None, began: float, errors: Any) -> None:
    """Be a worker with a core of its own, and no life after the parent's."""
    end_with_parent()
    pin(number)
    try:
        serve(search, until, began)
    except FlyweightError as error:
        errors.put(error)
        errors.close()
        errors.join_thread()
    except KeyboardInterrupt:
        os._exit(0)


def serve(search: Search, until: float | None, began: float) -> None:
    """Take part in the search with one thread, until nothing is left to do. Raises what stops a worker.

    Args:
        began: Wall-clock time (`time.time`) at which the process that began this worker, and ends with it, came.
    """
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for _ in _take_part(search, until, began):
        pass
