"""A model under load inside one fresh process: MLPerf's four scenarios, each one run.

Single stream and multi-stream send a query (1 image, 8 images) as soon as the one before is answered. Server sends
single images at random times (Poisson) whether or not the ones before are answered; there the latency of a query counts
from when it was *due*: a worker that falls behind is not forgiven the time that queries waited for it (no coordinated
omission). Offline has all images there at the start. `python -m flyweight.runtime.load < load.json` prints one JSON
object.

Source: Reddi et al. 2020, "MLPerf Inference Benchmark", section 4; MLCommons, inference_rules.adoc, "LoadGen
Operation".
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.runtime.backends import DEFAULT, load_backend
from flyweight.runtime.early_stopping import queries_needed
from flyweight.runtime.process import run_module
from flyweight.runtime.timing import Effort, Run, blocks_of, collector_off, images_of, sample, warm_up

SINGLE_STREAM, MULTI_STREAM, SERVER, OFFLINE = "single-stream", "multi-stream", "server", "offline"
SCENARIOS = (SINGLE_STREAM, MULTI_STREAM, SERVER, OFFLINE)
STREAM_IMAGES = 8  # of a multi-stream query
PERCENTILES = {SINGLE_STREAM: 0.9, MULTI_STREAM: 0.99, SERVER: 0.99}  # of the latency, that MLPerf reports or bounds
WARMUP_SECONDS = 1.0
YIELD_SECONDS = 0.0005  # a sleep may last longer than asked for: the rest of a wait is passed awake


@dataclass(frozen=True)
class Load:
    """What one process runs.

    Attributes:
        file: The model file.
        threads: Of each worker.
        workers: That take queries from the one queue of server and offline, each with a model of its own.
        images: `.npy` of (N, C, S, S) uint8 to run in turn; seeded noise without.
        batch: Images that offline runs at a time.
        rate: Queries per second that server sends.
        queries: That server sends in all, fixed before the run: one that went on while its answers are late, and was
            judged again, would pass by luck.
        seconds: The others run at least so long, and until early stopping can be judged.
        limit_seconds: But no longer than so; what server's queue then holds stays unanswered.
        seed: Of the times at which server's queries are due.
    """

    file: str
    scenario: str
    backend: str = DEFAULT
    threads: int = 1
    workers: int = 1
    images: str | None = None
    batch: int = 1
    rate: float = 0.0
    queries: int = 0
    seconds: float = 2.0
    limit_seconds: float = 30.0
    seed: int = 0


def load_in_fresh_process(load: Load) -> dict[str, Any]:
    """Return what a fresh process measured: `latencies_ns` of all queries, `unanswered`, `images`, `seconds`, `steady`.

    Raises:
        BundleError: The file cannot be loaded or run.
    """
    found: dict[str, Any] = json.loads(run_module("flyweight.runtime.load", [], json.dumps(asdict(load))))
    return found


def load_here(load: Load) -> dict[str, Any]:
    """Return the same, measured in this process."""
    engines = [load_backend(load.backend, Path(load.file), load.threads) for _ in range(load.workers)]
    runs = [engine.run for engine in engines]
    size = {SINGLE_STREAM: 1, MULTI_STREAM: STREAM_IMAGES, SERVER: 1, OFFLINE: load.batch}[load.scenario]
    blocks = itertools.cycle(blocks_of(images_of(load.images, engines[0].shape), size))
    steady = [warm_up(lambda run=run: run(next(blocks)), WARMUP_SECONDS)[1] for run in runs]  # type: ignore[misc]
    unanswered, start = 0, time.perf_counter_ns()
    if load.scenario == SERVER:
        latencies, unanswered = serve(runs, blocks, load)
    elif load.scenario == OFFLINE:
        latencies = _answer(runs, blocks, itertools.repeat(0), start, load.seconds)
    else:
        latencies = _one_after_the_other(runs[0], blocks, load)
    return {
        "latencies_ns": latencies,
        "unanswered": unanswered,
        "images": len(latencies) * size,
        "seconds": (time.perf_counter_ns() - start) / 1e9,
        "steady": all(steady),
    }


def serve(runs: Sequence[Run], blocks: Iterator[np.ndarray], load: Load) -> tuple[list[int], int]:
    """Return the latencies, in ns, of `load.queries` that are due at random times, and how many stayed unanswered."""
    due = list(itertools.islice(_due_times(load.rate, load.seed), load.queries))
    latencies = _answer(runs, blocks, due, time.perf_counter_ns(), load.limit_seconds)
    return latencies, load.queries - len(latencies)


def _one_after_the_other(run: Run, blocks: Iterator[np.ndarray], load: Load) -> list[int]:
    enough = queries_needed(1, PERCENTILES[load.scenario])
    return sample(lambda: run(next(blocks)), Effort(10**9, enough, load.seconds, load.limit_seconds))


def _answer(
    runs: Sequence[Run], blocks: Iterator[np.ndarray], due: Iterable[int], start: int, limit_seconds: float
) -> list[int]:
    """Return the latency of each query from when it was due, ns after `start`; none is begun after the limit.

    The times are known beforehand, so the queue needs no thread of its own that would take time from the workers:
    whoever is free takes the query that is due next and, if it is early, waits.
    """
    latencies: list[int] = []
    queue, end = iter(due), start + limit_seconds * 1e9  # a list's iterator gives no two workers the same query

    def work(run: Run) -> None:
        for at in queue:
            _wait_until(start + at)
            run(next(blocks))
            now = time.perf_counter_ns()
            latencies.append(now - start - at)
            if now >= end:
                return

    with collector_off():
        if len(runs) == 1:
            work(runs[0])
        else:
            with ThreadPoolExecutor(len(runs)) as pool:
                list(pool.map(work, runs))
    return latencies


def _wait_until(at: int) -> None:
    while (left := at - time.perf_counter_ns()) > 0:
        # Even a sleep of 0 lets the other workers have the interpreter.
        time.sleep(max(0.0, left / 1e9 - YIELD_SECONDS))


def _due_times(rate: float, seed: int) -> Iterator[int]:
    """Yield the times, in ns, of a Poisson process of `rate` events a second."""
    random = np.random.default_rng(seed)
    at = 0.0
    while True:
        at += random.exponential(1 / rate)
        yield round(at * 1e9)


def main(arguments: list[str]) -> None:
    """Run the load on standard input and print the result."""
    print(json.dumps(load_here(Load(**json.load(sys.stdin))), allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1:])
