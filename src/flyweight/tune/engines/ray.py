"""Workers as tasks of a Ray cluster, one core each: the one that RAY_ADDRESS names, or one on this machine.

Who trains what is decided by the workers in the study's database, not by Ray: it only starts them and replaces those
that died. So the results, and how a search goes on, are those of any other engine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from flyweight.errors import FlyweightError, OutputError
from flyweight.runtime.environment import is_cpu
from flyweight.tune.deaths import Patience, bury, explain, how_it_ended
from flyweight.tune.engines.local import serve
from flyweight.tune.search import Search
from flyweight.tune.store import Owner, open_store

LOOK_SECONDS = 0.5
KNOCK_SECONDS = 10.0
START_TRIES = 2
DIED: dict[type[Exception], str] = {  # Ray tells no exit code
    WorkerCrashedError: "killed, or crashed, as Ray says",
    NodeDiedError: "lost with its machine, as Ray says",
    OutOfMemoryError: "killed by Ray for want of memory",
}


def run_workers(search: Search, *, jobs: int, until: float | None) -> Iterator[None]:
    """Yield every half second while `jobs` tasks take part in the search.

    Raises:
        OutputError: The cluster has several machines, and the database is a file of this one.
        TrainingError: Workers die again and again, and nothing is finished.
        FlyweightError: What a worker raised.
    """
    # Ray says on standard output, which may be the report's, that a worker died.
    with contextlib.redirect_stdout(sys.stderr):
        yield from _run(search, jobs, until)


def _ended(how: str, owner: Owner) -> str:
    return how_it_ended(owner) or how


def _lost(how: str, owner: Owner) -> str:
    """Return the same for every owner: Ray says that a worker was lost, not which process."""
    return how


def _run(search: Search, jobs: int, until: float | None) -> Iterator[None]:
    started = _connect(jobs)
    try:
        _check_storage(search)
        store, patience = open_store(search.storage, search.name, facts={}, directions=search.directions), Patience()
        task = ray.remote(num_cpus=1, num_gpus=0 if is_cpu(search.device) else 1, max_retries=0)(_take_part)
        running = [task.remote(search, until, store.began, os.getcwd()) for _ in range(jobs)]
        while running:
            done, running = ray.wait(running, num_returns=1, timeout=LOOK_SECONDS)
            yield None
            for reference in done:
                how = _died(reference)
                if how:
                    with store.deciding():
                        bury(search, store, partial(_ended, how))
                        explain(store, partial(_lost, how))
                    patience.died(search, store.trials(), how)
                    running.append(task.remote(search, until, store.began, os.getcwd()))
    finally:
        if started:
            ray.shutdown()


def _connect(jobs: int) -> bool:
    """Join the cluster, or start one here; True where it was joined or started now."""
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    # Without "local" it would join what another `ray start` left on this machine, and refuse the number of cores.
    own: dict[str, Any] = {"address": "local", "num_cpus": jobs, "include_dashboard": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if address and address != "auto":
                _knock(address)
            _init({"address": address} if address else own, tries=1 if address else START_TRIES)
        except Exception as error:  # Ray raises just that where its processes do not come up in 30 s
            raise OutputError(
                f"the Ray cluster {address or 'of this machine'} cannot be reached: {error}",
                do="start it (ray start --head), set RAY_ADDRESS, or use --engine local",
                more="docs/tuning.md#engines",
            ) from error
    return True


def _init(options: Mapping[str, Any], tries: int) -> None:
    """Join or start a cluster; a busy machine may take longer than Ray waits, and is faster the second time."""
    for left in reversed(range(tries)):
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options)
        except Exception:
            if not left:
                raise
            ray.shutdown()
        else:
            return


def _knock(address: str) -> None:
    """Raise OSError where nothing answers: Ray itself would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host or "127.0.0.1", int(port)), timeout=KNOCK_SECONDS).close()


def _check_storage(search: Search) -> None:
    hosts = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    if len(hosts) > 1 and search.storage.startswith("sqlite"):
        raise OutputError(
            f"the cluster has {len(hosts)} machines, and {search.storage} is a file of this one",
            do="name a database that all of them reach: --storage postgresql+psycopg://USER@HOST/DATABASE",
            more="docs/tuning.md#many-machines",
        )


def _take_part(search: Search, until: float | None, began: float, folder: str) -> None:
    """Be a worker, in the folder that the command was started in where this machine has it."""
    if Path(folder).is_dir():
        os.chdir(folder)
    serve(search, until, began)


def _died(reference: Any) -> str:
    """Return how the worker died, in words; "" where it did not. What it raised is raised here."""
    try:
        ray.get(reference)
    except tuple(DIED) as error:
        return next(words for kind, words in DIED.items() if isinstance(error, kind))
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, FlyweightError) else None
        raise cause or error from None
    return ""
