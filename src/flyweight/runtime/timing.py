"""The latency protocol inside one fresh process: warm up until steady, then time single runs, none left out.

`python -m flyweight.runtime.timing < spec.json` prints one JSON object. `measure.speed` starts several of these in
random order and puts them together; here is nothing but the clock and what it times.
"""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import BundleError
from flyweight.runtime.backends import DEFAULT, Backend, DeviceClock, load_backend
from flyweight.runtime.process import run_module

MODEL, PREPROCESS, ENCODED = "model", "preprocess_model", "encoded"
DEVICE = "device"  # between two events on the device, where the backend has them: no copying, no starting


@dataclass(frozen=True)
class Effort:
    """How long one process samples.

    Attributes:
        samples: It stops after this many.
        enough: After `soft_seconds` this many will do.
        soft_seconds: Time for `samples`.
        hard_seconds: It stops here even with fewer than `enough`.
        warmup_seconds: Warm-up ends here even when not steady.
    """

    samples: int = 200
    enough: int = 60
    soft_seconds: float = 1.0
    hard_seconds: float = 12.0
    warmup_seconds: float = 1.0


# A window of the warm-up: at least 10 runs and 10 ms, at most 0.1 s, so that slow nets warm up in few runs.
WINDOW = Effort(samples=10**6, enough=10, soft_seconds=0.01, hard_seconds=0.1)
WINDOWS = 3
STEADY = 1.05  # the medians of the last three windows lie within 5 %


@dataclass(frozen=True)
class Spec:
    """What one process times.

    Attributes:
        file: The model file.
        clocks: Of `model`, `preprocess_model`, `encoded`, `device`.
        images: `.npy` of (N, C, S, S) uint8 to run in turn; seeded noise without.
        photo: An encoded image file, for the two clocks that preprocess.
        preprocess: `Preprocess.to_json`, for the same.
        batch: Images of one run by the clocks `model` and `device`; the other two take one.
        batches: Batch sizes to take the throughput of.
        throughput_effort: How long for each of those; `effort` without.
    """

    file: str
    backend: str = DEFAULT
    threads: int = 1
    clocks: tuple[str, ...] = (MODEL,)
    images: str | None = None
    photo: str | None = None
    preprocess: dict[str, Any] | None = None
    batch: int = 1
    batches: tuple[int, ...] = ()
    effort: Effort = field(default_factory=Effort)
    throughput_effort: Effort | None = None


def time_in_fresh_process(spec: Spec) -> dict[str, Any]:
    """Return what a fresh process measured: samples in ns by clock, warm-up facts, throughput by batch size.

    Raises:
        BundleError: The file cannot be loaded or run.
    """
    found: dict[str, Any] = json.loads(run_module("flyweight.runtime.timing", [], json.dumps(asdict(spec))))
    return found


def time_here(spec: Spec) -> dict[str, Any]:
    """Return the same, measured in this process."""
    return time_backend(load_backend(spec.backend, Path(spec.file), spec.threads), spec)


def time_backend(backend: Backend, spec: Spec) -> dict[str, Any]:
    """Return the same of a loaded backend, whatever the spec names."""
    images = images_of(spec.images, backend.shape)
    blocks = itertools.cycle(blocks_of(images, spec.batch))
    clocks: dict[str, Any] = {}
    for name in spec.clocks:
        if name == DEVICE:
            clocks[name] = _timed_by_device(backend, blocks, spec.effort)
        else:
            clocks[name] = _timed(CLOCKS[name](spec, backend.run, blocks), spec.effort)
    return {"clocks": clocks, "throughput": _throughputs(backend.run, images, spec)}


def images_of(file: str | None, shape: tuple[int, int, int]) -> np.ndarray:
    """Return images (N, C, S, S) uint8 from a `.npy` file; eight of seeded noise without one."""
    if file is not None:
        return np.ascontiguousarray(np.load(file, allow_pickle=False))
    return np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)


def blocks_of(images: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return blocks (batch, C, S, S) that go through the images once, and over again where a block needs more."""
    starts = range(0, max(1, len(images) - batch + 1), batch)
    return [np.ascontiguousarray(images.take(range(i, i + batch), axis=0, mode="wrap")) for i in starts]


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect garbage now, and not again within the block."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def sample(run: Callable[[], object], effort: Effort) -> list[int]:
    """Return the duration of each run in ns, in order and none left out."""
    clock = time.perf_counter_ns

    def lap() -> int:
        before = clock()
        run()
        return clock() - before

    return _laps(lap, effort)


def _laps(lap: Callable[[], int], effort: Effort) -> list[int]:
    durations: list[int] = []
    with collector_off():
        start = time.perf_counter_ns()
        while not _over(len(durations), (time.perf_counter_ns() - start) / 1e9, effort):
            durations.append(lap())
    return durations


def warm_up(run: Callable[[], object], seconds: float) -> tuple[int, bool]:
    """Run until three windows in a row agree, or the time is over; return (runs, steady)."""
    medians: list[float] = []
    runs, start = 0, time.perf_counter()
    while True:
        durations = sample(run, WINDOW)
        runs += len(durations)
        medians.append(statistics.median(durations))
        last = medians[-WINDOWS:]
        if len(last) == WINDOWS and max(last) <= STEADY * min(last):
            return runs, True
        if time.perf_counter() - start > seconds:
            return runs, False


def _over(n: int, seconds: float, effort: Effort) -> bool:
    if n == 0:
        return False
    soft_end = seconds >= effort.soft_seconds and n >= effort.enough
    return n >= effort.samples or soft_end or seconds >= effort.hard_seconds


def _timed(run: Callable[[], object], effort: Effort, sampled: Callable[[], list[int]] | None = None) -> dict[str, Any]:
    runs, steady = warm_up(run, effort.warmup_seconds)
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    samples = sampled() if sampled else sample(run, effort)
    share = (time.process_time_ns() - cpu) / (time.perf_counter_ns() - wall)
    return {"warmup_runs": runs, "steady": steady, "samples_ns": samples, "cpu_share": share}


def _timed_by_device(backend: Backend, blocks: Iterator[np.ndarray], effort: Effort) -> dict[str, Any]:
    if not isinstance(backend, DeviceClock):
        raise BundleError(
            f"the backend {backend.name!r} has no clock on a device", do=f"use the clock {MODEL!r}, or a CUDA backend"
        )
    lap = backend.device_ns
    return _timed(lambda: lap(next(blocks)), effort, lambda: _laps(lambda: lap(next(blocks)), effort))


Run = Callable[[np.ndarray], np.ndarray]


def _model_clock(spec: Spec, run: Run, blocks: Iterator[np.ndarray]) -> Callable[[], object]:
    return lambda: run(next(blocks))


def _preprocess_clock(spec: Spec, run: Run, blocks: Iterator[np.ndarray]) -> Callable[[], object]:
    from flyweight.runtime.preprocess import Preprocess, decode, fit_image

    preprocess = Preprocess.from_json(spec.preprocess or {})
    pixels = decode(Path(spec.photo or ""), preprocess.channels)
    return lambda: run(_batch_of(fit_image(pixels, preprocess)))


def _encoded_clock(spec: Spec, run: Run, blocks: Iterator[np.ndarray]) -> Callable[[], object]:
    from flyweight.runtime.preprocess import Preprocess, load

    preprocess = Preprocess.from_json(spec.preprocess or {})
    content = Path(spec.photo or "").read_bytes()
    return lambda: run(_batch_of(load(content, preprocess)))


CLOCKS = {MODEL: _model_clock, PREPROCESS: _preprocess_clock, ENCODED: _encoded_clock}


def _batch_of(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _throughputs(run: Run, images: np.ndarray, spec: Spec) -> list[dict[str, Any]]:
    """Return a row per batch size, up to the first of which one run alone would take longer than there is time."""
    rows: list[dict[str, Any]] = []
    for batch in spec.batches:
        if rows and batch / rows[-1]["images_per_second"] > spec.effort.hard_seconds:
            break
        rows.append(_throughput(run, images, batch, spec.throughput_effort or spec.effort))
    return rows


def _throughput(run: Run, images: np.ndarray, batch: int, effort: Effort) -> dict[str, Any]:
    """Return all images of a batch size's own runs over the time these took: slow runs count in full."""
    block = np.resize(images, (batch, *images.shape[1:]))
    durations = _timed(lambda: run(block), effort)["samples_ns"]
    return {"batch": batch, "images_per_second": batch * len(durations) * 1e9 / sum(durations), "n": len(durations)}


def main(arguments: list[str]) -> None:
    """Time the spec on standard input and print the result."""
    print(json.dumps(time_here(read_spec(sys.stdin.read())), allow_nan=False))


def read_spec(text: str) -> Spec:
    """Return the spec that JSON says."""
    given = json.loads(text)
    efforts = {key: Effort(**given[key]) for key in ("effort", "throughput_effort") if given[key]}
    return Spec(**(given | efforts))


if __name__ == "__main__":
    main(sys.argv[1:])
