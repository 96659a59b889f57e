"""Load: the queue against Lindley's recursion, on a clock that passes only when something waits."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flyweight.errors import BundleError
from flyweight.runtime import load
from flyweight.runtime.load import (
    OFFLINE,
    SCENARIOS,
    SERVER,
    SINGLE_STREAM,
    Load,
    load_here,
    load_in_fresh_process,
    serve,
)

BLOCKS = itertools.repeat(np.zeros((1, 1, 8, 8), np.uint8))


class Clock:
    """Time that passes only when something waits."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += max(1000, int(seconds * 1e9))

    def work(self, milliseconds: float) -> np.ndarray:
        self.now_ns += int(milliseconds * 1e6)
        return np.zeros((1, 2), np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(load, "time", made)
    return made


def server(rate: float, queries: int = 1000, **changes: float) -> Load:
    return Load("", SERVER, rate=rate, queries=queries, **changes)  # type: ignore[arg-type]


def lindley(rate: float, seed: int, service_ms: np.ndarray) -> np.ndarray:
    """Return latencies of a queue with one server: what waits, plus the service (Lindley 1952)."""
    gaps = 1000 * np.random.default_rng(seed).exponential(1 / rate, len(service_ms))
    waits = [0.0]
    for gap, service in zip(gaps[1:], service_ms[:-1], strict=True):
        waits.append(max(0.0, waits[-1] + service - gap))
    return np.array(waits) + service_ms


@pytest.mark.parametrize("rate", [50.0, 400.0, 490.0])
def test_the_queue_of_one_worker_is_lindleys(clock: Clock, rate: float) -> None:
    services = np.random.default_rng(1).uniform(1.0, 3.0, 5000)
    times = iter(services)
    found, unanswered = serve([lambda images: clock.work(next(times))], BLOCKS, server(rate, seed=3))
    assert unanswered == 0
    np.testing.assert_allclose(np.array(found) / 1e6, lindley(rate, 3, services[: len(found)]), atol=0.01)


def test_a_stall_is_counted_by_every_query_that_was_due_in_it(clock: Clock) -> None:
    times = itertools.chain([1.0] * 100, [200.0], itertools.repeat(0.1))
    found, _ = serve([lambda images: clock.work(next(times))], BLOCKS, server(500.0))
    late = sum(latency > 100e6 for latency in found)
    assert 30 <= late <= 70  # 500 a second are due in the first 100 ms of it: a closed loop would have seen 1 late


@pytest.mark.parametrize("late", [0, 5, 100])
def test_it_sends_as_many_queries_as_were_fixed_before_however_many_are_late(clock: Clock, late: int) -> None:
    times = itertools.chain([1.0] * (900 - late), itertools.repeat(4.0))
    found, unanswered = serve([lambda images: clock.work(next(times))], BLOCKS, server(10.0, 900, limit_seconds=1000))
    assert (len(found), unanswered) == (900, 0)


def test_a_queue_that_grows_beyond_the_limit_leaves_queries_unanswered(clock: Clock) -> None:
    found, unanswered = serve([lambda images: clock.work(50.0)], BLOCKS, server(1000.0, 662, limit_seconds=1.0))
    assert len(found) == 20
    assert unanswered == 662 - 20


def test_queries_come_at_the_asked_rate_and_as_a_poisson_process_does() -> None:
    due = np.array(list(itertools.islice(load._due_times(200.0, 0), 20_000))) / 1e9
    gaps = np.diff(due)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.03)  # of an exponential distribution equal to its mean
    counts = np.histogram(due, np.arange(0, due[-1], 0.1))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.25)


def test_the_same_seed_sends_the_same_queries() -> None:
    first, second, other = (list(itertools.islice(load._due_times(9.0, seed), 5)) for seed in (1, 1, 2))
    assert first == second != other


def test_several_workers_answer_every_query_once() -> None:
    seen: Counter[int] = Counter()
    blocks = iter([np.full((1, 1), number) for number in range(2000)])  # a list's iterator, as the cycle of a real run

    def run(images: np.ndarray) -> np.ndarray:
        seen[int(images[0, 0])] += 1
        return images

    found, unanswered = serve([run] * 4, blocks, server(20_000.0))
    assert unanswered == 0
    assert len(found) == 1000
    assert sorted(seen) == list(range(1000))
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_runs_a_model(bundle_path: Path, scenario: str) -> None:
    asked = Load(str(bundle_path / "model.onnx"), scenario, batch=4, rate=200, queries=300, seconds=0.05, workers=2)
    found = load_here(asked)
    size = {"multi-stream": 8, OFFLINE: 4}.get(scenario, 1)
    assert found["images"] == size * len(found["latencies_ns"]) > 0
    assert min(found["latencies_ns"]) > 0
    assert len(found["latencies_ns"]) >= {SINGLE_STREAM: 64, "multi-stream": 662, SERVER: 300}.get(scenario, 1)


def test_it_runs_in_a_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "wait.json").write_text(json.dumps({"milliseconds": 2.0}))
    found = load_in_fresh_process(Load(str(tmp_path / "wait.json"), SINGLE_STREAM, "busy-wait", seconds=0.1))
    assert min(found["latencies_ns"]) >= 2e6


def test_a_file_that_is_no_model_is_an_error_from_the_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"bad\.onnx"):
        load_in_fresh_process(Load(str(tmp_path / "bad.onnx"), SERVER, rate=1.0, queries=1))
