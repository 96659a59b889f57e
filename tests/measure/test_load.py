from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from flyweight.measure import load
from flyweight.measure.batches import Cell, Deadline
from flyweight.measure.load import (
    FULL_LOAD,
    LOOKS,
    NONE,
    QUICK_LOAD,
    Patience,
    Trial,
    highest_rate,
    judged,
    run_load,
    search_rate,
)
from flyweight.runtime.early_stopping import queries_needed
from flyweight.runtime.load import MULTI_STREAM, OFFLINE, SERVER, SINGLE_STREAM, Load

BRIEF = Patience(seconds=0.1, limit_seconds=60.0, halvings=2, confirmations=1)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    (tmp_path / "wait.json").write_text(json.dumps({"milliseconds": 0.5}))
    return Cell("waiting", tmp_path / "wait.json", "busy-wait", 1)


@pytest.mark.parametrize("true", [3.0, 50.0, 77.7, 99.0])
def test_the_highest_rate_is_found_within_a_halving(true: float) -> None:
    found = highest_rate(lambda rate, seed: rate <= true, 100.0, halvings=8, confirmations=2)
    assert found is not None
    assert true - 100 / 2**8 <= found <= true


def test_a_rate_that_held_by_luck_is_lowered_until_it_holds_again() -> None:
    found = highest_rate(lambda rate, seed: rate <= (80.0 if seed == 0 else 60.0), 100.0, halvings=8, confirmations=2)
    assert found is not None
    assert 60 * 0.95 <= found <= 60


def test_no_rate_where_none_holds_or_none_holds_again() -> None:
    assert highest_rate(lambda rate, seed: False, 100.0, halvings=5, confirmations=1) is None
    assert highest_rate(lambda rate, seed: seed == 0, 100.0, halvings=5, confirmations=1) is None


def test_every_confirmation_has_queries_due_at_other_times() -> None:
    seeds: list[int] = []
    highest_rate(lambda rate, seed: bool(seeds.append(seed)) or True, 100.0, halvings=2, confirmations=3)
    assert seeds == [0, 0, 1, 2, 3]


def test_single_stream_gives_the_early_stopping_estimate_of_p90(cell: Cell) -> None:
    found = run_load(SINGLE_STREAM, cell, patience=BRIEF)
    assert (found.percentile, found.batch, found.reason) == (0.9, 1, None)
    assert found.n >= 64
    assert found.early_stopping_ms is not None
    assert found.p90.ms is not None
    assert found.early_stopping_ms >= found.p90.ms >= 0.5


def test_too_few_queries_give_no_estimate_but_the_reason(cell: Cell) -> None:
    found = run_load(MULTI_STREAM, cell, patience=Patience(0.01, 0.05, 1, 1))
    assert found.early_stopping_ms is None
    assert "the rule needs 662" in str(found.reason)


def test_offline_gives_a_throughput_and_no_latency(cell: Cell) -> None:
    found = run_load(OFFLINE, cell, patience=BRIEF)
    assert found.images_per_second is not None
    assert 0 < found.images_per_second <= 2000
    assert found.p50.ms is None


def test_server_sends_queries_to_a_model_and_keeps_every_rate_it_tried(cell: Cell) -> None:
    found = run_load(SERVER, cell, bound_ms=1e6, patience=Patience(0.1, 300.0, halvings=1, confirmations=1))
    assert found.queries_per_second is not None
    assert found.queries_per_second < 2000
    assert [(trial.seed, trial.holds) for trial in found.trials] == [(0, True), (LOOKS, True)]
    assert found.n >= 662
    assert found.p99.ms is not None
    assert found.p99.ms >= 0.5


def queue_of_2_ms(asked: Load) -> dict[str, object]:
    """Return what a load gives where every image takes 2 ms: a queue with fixed service, by Lindley's recursion."""
    if asked.scenario == SINGLE_STREAM:
        return {"latencies_ns": [2_000_000] * 500, "unanswered": 0, "images": 500, "seconds": 1.0, "steady": True}
    gaps = 1000 * np.random.default_rng(asked.seed).exponential(1 / asked.rate, 20_000)
    waits = [0.0]
    for gap in gaps:
        waits.append(max(0.0, waits[-1] + 2.0 - gap))
    latencies = [round(1e6 * (wait + 2.0)) for wait in waits]
    return {"latencies_ns": latencies, "unanswered": 0, "images": len(latencies), "seconds": 1.0, "steady": True}


def test_the_highest_rate_of_a_known_queue_is_found_below_its_capacity(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_in_fresh_process", queue_of_2_ms)
    found = run_load(SERVER, cell, bound_ms=10.0, patience=Patience(1.0, 30.0, halvings=6, confirmations=2))
    rate = found.queries_per_second
    assert rate is not None
    # With fixed service s and load r the wait is over t with probability (1 - r) / (r exp(z s) - 1) exp(-z t), where
    # r (exp(z s) - 1) = z s (Cramér, Lundberg). For 8 ms that is 1 % at 280 queries/s; with 20,000 queries the rule
    # holds up to 0.75 %, which is 267/s, and the rate is the lowest of three runs.
    assert 220 < rate < 280
    assert all(trial.holds for trial in found.trials if trial.rate < 0.95 * rate)
    assert not any(trial.holds for trial in found.trials if trial.rate > 1.1 * rate)
    assert all(trial.holds == (trial.n >= trial.needed) for trial in found.trials)


def test_a_bound_that_one_query_alone_breaks_is_held_by_no_rate(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_in_fresh_process", queue_of_2_ms)
    found = run_load(SERVER, cell, bound_ms=1.0, patience=Patience(1.0, 30.0, halvings=3, confirmations=1))
    assert (found.queries_per_second, found.p99.ms, found.n) == (None, None, 0)
    assert "no rate of 62.5 queries/s or more holds p99 within 1 ms" in str(found.reason)
    assert not any(trial.holds for trial in found.trials)


def test_a_model_too_slow_for_the_rule_is_not_tried_and_the_reason_says_so(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_in_fresh_process", queue_of_2_ms)
    found = run_load(SERVER, cell, bound_ms=5.0, patience=Patience(1.0, 1.0, halvings=3, confirmations=1))
    assert found.trials == ()
    assert "too few queries in 1 s" in str(found.reason)


def test_no_time_left_is_the_reason_that_server_gives(cell: Cell) -> None:
    found = run_load(SERVER, cell, bound_ms=5.0, patience=BRIEF, deadline=Deadline(minutes=0.0))
    assert found.queries_per_second is None
    assert found.reason == "the 0 minutes were over"


class AtTheBound:
    """A system that answers each query late with the same probability at every rate, and what was said of it."""

    def __init__(self, late: float, seed: int, patience: Patience) -> None:
        self.late, self.random, self.patience = late, np.random.default_rng(seed), patience
        self.repeated = self.held = 0

    def send(self, rate: float, queries: int, seed: int) -> Trial:
        late = int(self.random.binomial(queries, self.late))
        needed = queries_needed(late, 0.99, self.patience.confidence)
        self.repeated, self.held = self.repeated + (seed % LOOKS > 0), self.held + (queries >= needed)
        return Trial(rate=rate, seed=seed, n=queries, late=late, needed=needed, unanswered=0, holds=queries >= needed,
                     p50=NONE, p99=NONE)  # fmt: skip


@pytest.mark.parametrize("patience", [FULL_LOAD, QUICK_LOAD], ids=["full", "quick"])
@pytest.mark.parametrize("queries", [3_000, 15_000, 60_000])
def test_a_search_says_of_a_system_at_the_bound_that_it_holds_in_fewer_than_1_of_100(
    patience: Patience, queries: int
) -> None:
    searches = 1000
    systems = [AtTheBound(0.01, seed, patience) for seed in range(searches)]
    rates = [search_rate(system.send, queries / patience.limit_seconds, patience) for system in systems]
    allowed = binom.ppf(0.999, searches, 0.01)
    assert sum(rate is not None for rate in rates) <= allowed
    assert sum(system.held > 0 for system in systems) <= allowed  # nor is any one of its runs said to
    assert sum(system.repeated for system in systems) > searches / 2  # they did look again


def test_a_system_with_half_as_many_late_answers_is_found_to_hold() -> None:
    found = [search_rate(AtTheBound(0.005, seed, FULL_LOAD).send, 500.0, FULL_LOAD) for seed in range(100)]
    assert sum(rate is not None and rate > 100 for rate in found) >= 85


def test_each_run_at_a_rate_is_longer_its_queries_fixed_before_and_due_at_other_times() -> None:
    sent: list[tuple[float, int, int]] = []

    def near(rate: float, queries: int, seed: int) -> Trial:
        sent.append((rate, queries, seed))
        return judged(rate, seed, [9.0] * (queries // 120) + [1.0] * (queries - queries // 120), 5.0, 0, 0.9999999)

    search_rate(near, 100.0, Patience(2.0, 30.0, halvings=1, confirmations=1))
    assert [(rate, seed) for rate, _, seed in sent] == [(50.0, 0), (50.0, 1), (50.0, 2)]
    counts = [queries for _, queries, _ in sent]
    assert counts == list(Patience(2.0, 30.0, 1, 1).looks(50.0))
    assert counts == sorted(set(counts))
    assert counts[-1] == 0.9 * 50 * 30


def test_a_run_that_is_late_more_often_than_the_bound_is_not_repeated() -> None:
    seeds: list[int] = []

    def bad(rate: float, queries: int, seed: int) -> Trial:
        seeds.append(seed)
        return judged(rate, seed, [9.0] * queries, 5.0, 0, 0.9999)

    assert search_rate(bad, 1000.0, Patience(2.0, 30.0, halvings=3, confirmations=1)) is None
    assert seeds == [0, 0, 0]
