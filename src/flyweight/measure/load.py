"""MLPerf's scenarios put together: what a model holds under load, judged by the early-stopping rule.

MLPerf asks for runs of ten minutes; these are seconds long, and say so. They follow its rules otherwise, but are no
MLPerf results: those come from its own load generator and are reviewed.

Server looks often: at each rate that the search tries up to three runs, each a fresh one with more queries than the one
before, their number fixed beforehand. The 1 % of the rule is divided by all the runs that a search may come to, so that
in fewer than 1 of 100 searches any run is said to hold a bound that the model just misses at that rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from flyweight.measure.batches import Cell, Deadline
from flyweight.measure.latency import Quantile, quantile_of
from flyweight.runtime.early_stopping import early_stopping_estimate, queries_needed, spent
from flyweight.runtime.load import (
    OFFLINE,
    PERCENTILES,
    SERVER,
    SINGLE_STREAM,
    STREAM_IMAGES,
    Load,
    load_in_fresh_process,
)

TRIES = 8  # lower rates that are tried where a confirmation fails
LOWER = 0.95
LOOKS = 3  # runs at one rate, the later ones longer; only where the one before did not hold, and yet was near
LONGEST = 0.9  # of the limit: queries are due at random, the last of them later than planned in half of the runs
NONE = Quantile(None, None, None, "no run held the bound")


@dataclass(frozen=True)
class Patience:
    """How long a load runs, and how finely the highest rate is searched.

    Attributes:
        seconds, limit_seconds: Of each run, see `runtime.load.Load`; of server about the shortest and the longest.
        halvings: Of the interval between no load and what the model can do at most.
        confirmations: Further runs that the rate must hold, with queries due at other times.
    """

    seconds: float
    limit_seconds: float
    halvings: int
    confirmations: int

    @property
    def confidence(self) -> float:
        """What each run of server has to hold with, for all that there may be to be wrong in 1 of 100 at most."""
        return spent(LOOKS * (self.halvings + TRIES * self.confirmations))

    @property
    def least(self) -> int:
        """The fewest queries of a run of server."""
        return queries_needed(1, PERCENTILES[SERVER], self.confidence)

    def looks(self, rate: float) -> tuple[int, ...]:
        """Return how many queries each run at a rate has, the shortest first; () where the rate is too low to say."""
        most = math.floor(LONGEST * rate * self.limit_seconds)
        if most < self.least:
            return ()
        first = min(most, max(self.least, math.ceil(rate * self.seconds)))
        return tuple(sorted({round(first * (most / first) ** (look / (LOOKS - 1))) for look in range(LOOKS)}))


FULL_LOAD, QUICK_LOAD = Patience(2.0, 30.0, 6, 2), Patience(0.5, 10.0, 4, 1)


class Trial(BaseModel):
    """One run of server at a rate (queries per second).

    Attributes:
        n: Queries that were answered.
        late: Those over the bound.
        needed: Queries in all that so many late ones ask for, with the error divided by all runs that the search may
            come to; with fewer the bound does not hold.
        unanswered: That were due when the time was over.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rate: float
    seed: int
    n: int
    late: int
    needed: int
    unanswered: int
    holds: bool
    p50: Quantile
    p99: Quantile


class LoadRow(BaseModel):
    """What one model, on one backend, did under one scenario.

    Attributes:
        batch: Images of a query; of a block in offline.
        n: Queries of the run that the quantiles are of: for server the last one that held the highest rate, and there
            the latency counts from when a query was due.
        percentile: Of the latency, that MLPerf reports for the scenario, or bounds.
        early_stopping_ms: That percentile with 99 % confidence, by MLPerf's rule for single stream and multi-stream.
        queries_per_second: The highest rate that holds the bound; server.
        images_per_second: With all images there at the start; offline.
        trials: Every rate that was tried, in order; server.
        reason: Why the scenario's own number is null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scenario: str
    model: str
    backend: str
    threads: int
    workers: int
    batch: int
    n: int
    seconds: float
    steady: bool
    percentile: float | None = None
    p50: Quantile
    p90: Quantile
    p99: Quantile
    early_stopping_ms: float | None = None
    bound_ms: float | None = None
    queries_per_second: float | None = None
    images_per_second: float | None = None
    trials: tuple[Trial, ...] = ()
    reason: str | None = None


def run_load(
    scenario: str,
    cell: Cell,
    *,
    workers: int = 1,
    bound_ms: float | None = None,
    patience: Patience = FULL_LOAD,
    deadline: Deadline | None = None,
    progress: Callable[[str], None] | None = None,
) -> LoadRow:
    """Return what a model holds under a scenario.

    Args:
        cell: What runs; its batch is that of offline.
        workers: With a model of `cell.threads` threads each; of server and offline.
        bound_ms: Of the latency's 99th percentile; of server.

    Raises:
        BundleError: The file cannot be loaded or run.
    """
    if scenario == SERVER:
        assert bound_ms is not None  # the caller has asked for one
        return _server(cell, workers, bound_ms, patience, deadline or Deadline(), progress or (lambda text: None))
    found = load_in_fresh_process(_load(scenario, cell, workers, patience))
    if scenario == OFFLINE:
        return _row(scenario, cell, workers, found, images_per_second=found["images"] / found["seconds"])
    percentile = PERCENTILES[scenario]
    estimate = early_stopping_estimate(_ms(found), percentile)
    needed = queries_needed(1, percentile)
    reason = None if estimate is not None else f"n too small: {len(_ms(found))} queries, the rule needs {needed}"
    return _row(scenario, cell, 1, found, percentile=percentile, early_stopping_ms=estimate, reason=reason)


def highest_rate(
    holds: Callable[[float, int], bool], capacity: float, *, halvings: int, confirmations: int
) -> float | None:
    """Return the highest rate that holds, found by halving 0..capacity and confirmed; None where there is none.

    The best of several noisy tries flatters: the rate must hold again, with other seeds, and is lowered until it does.

    Args:
        holds: Of a rate and a seed.
    """
    low, high = 0.0, capacity
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle, 0) else (low, middle)
    if low == 0.0:
        return None
    for _ in range(TRIES):
        if all(holds(low, seed) for seed in range(1, confirmations + 1)):
            return low
        low *= LOWER
    return None


def search_rate(send: Callable[[float, int, int], Trial], capacity: float, patience: Patience) -> float | None:
    """Return the highest rate that holds, by runs of `send`; None where there is none.

    Args:
        send: Of a rate, the number of queries and a seed: one run.
    """

    def holds(rate: float, seed: int) -> bool:
        for look, queries in enumerate(patience.looks(rate)):
            trial = send(rate, queries, LOOKS * seed + look)
            if trial.holds:
                return True
            # Giving up cannot make anything pass by luck, so it costs no confidence.
            if trial.unanswered or trial.late >= (1 - PERCENTILES[SERVER]) * trial.n:
                return False
        return False

    return highest_rate(holds, capacity, halvings=patience.halvings, confirmations=patience.confirmations)


def _server(
    cell: Cell, workers: int, bound_ms: float, patience: Patience, deadline: Deadline, say: Callable[[str], None]
) -> LoadRow:
    alone = load_in_fresh_process(_load(SINGLE_STREAM, cell, 1, patience))
    capacity = workers * alone["images"] / alone["seconds"]
    trials: list[Trial] = []
    held: dict[str, Any] = {}

    def send(rate: float, queries: int, seed: int) -> Trial:
        if deadline.seconds_left <= 0:
            return judged(rate, seed, [], bound_ms, queries, patience.confidence)
        say(f"server at {rate:,.0f} queries/s, {queries:,} of them")
        found = load_in_fresh_process(_load(SERVER, cell, workers, patience, rate=rate, queries=queries, seed=seed))
        trials.append(judged(rate, seed, _ms(found), bound_ms, found["unanswered"], patience.confidence))
        if trials[-1].holds:
            held.update(found)
        return trials[-1]

    rate = search_rate(send, capacity, patience)
    why = None if rate is not None else _why_none(trials, capacity, bound_ms, patience, deadline)
    if rate is None:
        held.clear()
    return _row(
        SERVER, cell, workers, held, percentile=PERCENTILES[SERVER], bound_ms=bound_ms, queries_per_second=rate,
        trials=tuple(trials), reason=why,
    )  # fmt: skip


def _why_none(trials: list[Trial], capacity: float, bound_ms: float, patience: Patience, deadline: Deadline) -> str:
    if deadline.seconds_left <= 0:
        return deadline.why
    if not trials or not any(trial.holds for trial in trials):
        least = patience.least / (LONGEST * patience.limit_seconds)
        return (
            f"no rate of {min((trial.rate for trial in trials), default=least):.3g} queries/s or more holds p99 within "
            f"{bound_ms:g} ms; one after the other it answers {capacity:.3g}/s, and rates below {least:.3g}/s give "
            f"too few queries in {patience.limit_seconds:g} s to say"
        )
    return "no rate held again when it was confirmed"


def judged(rate: float, seed: int, ms: Sequence[float], bound_ms: float, unanswered: int, confidence: float) -> Trial:
    """Return a run of server with the latencies `ms` and whether it holds the bound."""
    late = sum(one > bound_ms for one in ms)
    needed = queries_needed(late, PERCENTILES[SERVER], confidence)
    return Trial(
        rate=rate, seed=seed, n=len(ms), late=late, needed=needed, unanswered=unanswered,
        holds=unanswered == 0 and len(ms) >= needed,
        p50=quantile_of(ms, 0.5) if ms else NONE, p99=quantile_of(ms, 0.99) if ms else NONE,
    )  # fmt: skip


def _load(scenario: str, cell: Cell, workers: int, patience: Patience, **more: Any) -> Load:
    return Load(
        str(cell.file), scenario, cell.backend, cell.threads, workers, cell.images, cell.batch,
        seconds=patience.seconds, limit_seconds=patience.limit_seconds, **more,
    )  # fmt: skip


def _row(scenario: str, cell: Cell, workers: int, found: dict[str, Any], **more: Any) -> LoadRow:
    """Return the row of a run; `found` is empty where no run of server held."""
    ms = _ms(found)
    quantiles = {f"p{q * 100:g}": quantile_of(ms, q) if ms else NONE for q in (0.5, 0.9, 0.99)}
    if scenario == OFFLINE:  # how long an image waited for its turn says nothing
        quantiles = dict.fromkeys(quantiles, Quantile(None, None, None, "offline has no latency"))
    size = {OFFLINE: cell.batch, SINGLE_STREAM: 1, SERVER: 1}.get(scenario, STREAM_IMAGES)
    return LoadRow(
        scenario=scenario, model=cell.model, backend=cell.backend, threads=cell.threads, workers=workers, batch=size,
        n=len(ms), seconds=found.get("seconds", 0.0), steady=found.get("steady", False), **quantiles, **more,
    )  # fmt: skip


def _ms(found: dict[str, Any]) -> list[float]:
    return [ns / 1e6 for ns in found.get("latencies_ns", ())]
