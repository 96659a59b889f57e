"""Latency of model files: several fresh processes each, in random order, put together with intervals."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import FlyweightBug, FlyweightError
from flyweight.measure.statistics import midranks, permutation_test, quantile_interval, smallest_n
from flyweight.runtime.backends import DEFAULT
from flyweight.runtime.timing import MODEL, Effort, Spec, time_in_fresh_process

ALPHA = 0.05
DISTURBED = 0.9
FULL_N = smallest_n(0.99)  # fewer samples than this in a full run mean that the net is slow: p50 only


@dataclass(frozen=True)
class Plan:
    """How much is run: `processes` fresh processes of `effort` each for every candidate."""

    processes: int
    effort: Effort
    noise_floor: bool  # time the first candidate twice by the model clock, as if it were two

    @property
    def enough(self) -> int:
        """A net with fewer samples than this, and than 299, is slow."""
        return self.processes * self.effort.enough


FULL = Plan(5, Effort(), noise_floor=True)
QUICK = Plan(3, Effort(samples=100, enough=10, soft_seconds=0.15, hard_seconds=3.0, warmup_seconds=0.15), False)


@dataclass(frozen=True)
class Quantile:
    """A quantile of the latency with its order-statistic 95 % interval, or the reason why there is none."""

    ms: float | None
    low_ms: float | None
    high_ms: float | None
    reason: str | None = None


@dataclass(frozen=True)
class LatencyResult:
    """The latency of one file by one clock, batch 1 where nothing else is said.

    Attributes:
        samples_ms: Every sample of each process, in the order of the processes; none is left out.
        steady: Whether every process was steady when its warm-up ended.
        noise_floor: Relative difference of medians that this machine shows between a file and itself; None where
            that was not measured.
        cpu_share: Processor time over wall time of the process that was kept off the processor most. With one thread
            well below 1 means that other programs had the core: the clock is then right and the latency not the
            model's. The noise floor cannot see this, since it disturbs every process alike.
        slow: Too slow for 299 samples in the time: only p50 is given.
    """

    name: str
    clock: str
    backend: str
    threads: int
    samples_ms: tuple[tuple[float, ...], ...]
    steady: bool
    warmup_runs: int
    noise_floor: float | None = None
    slow: bool = False
    cpu_share: float | None = None

    @property
    def disturbed(self) -> bool:
        """True when other programs took a tenth or more of the time."""
        return self.cpu_share is not None and self.cpu_share < DISTURBED

    @property
    def n(self) -> int:
        """How many runs were timed."""
        return sum(map(len, self.samples_ms))

    @property
    def process_medians_ms(self) -> tuple[float, ...]:
        """Median of each process."""
        return tuple(statistics.median(samples) for samples in self.samples_ms)

    @property
    def p50_ms(self) -> float | None:
        """Median of all samples; None with fewer than 6."""
        return self.quantile(0.5).ms

    @property
    def p90_ms(self) -> float | None:
        """90 % of runs were at most this long; None with fewer than 29, or when the net is slow."""
        return self.quantile(0.9).ms

    @property
    def p99_ms(self) -> float | None:
        """99 % of runs were at most this long; None with fewer than 299, or when the net is slow."""
        return self.quantile(0.99).ms

    def quantile(self, q: float) -> Quantile:
        """Return a quantile of all samples."""
        if self.slow and q > 0.5:
            return Quantile(None, None, None, f"slow: {self.n} samples in the time, so p50 only")
        return quantile_of([ms for samples in self.samples_ms for ms in samples], q)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the three quantiles and how they were taken."""
        quantiles = {f"p{q * 100:g}": vars(self.quantile(q)) for q in (0.5, 0.9, 0.99)}
        return {
            **quantiles,
            "n": self.n,
            "process_medians_ms": list(self.process_medians_ms),
            "warmup_runs": self.warmup_runs,
            "steady": self.steady,
            "noise_floor": self.noise_floor,
            "cpu_share": self.cpu_share,
            "disturbed": self.disturbed,
        }


def quantile_of(samples_ms: Sequence[float], q: float) -> Quantile:
    """Return a quantile of samples, or why they are too few."""
    found = quantile_interval(samples_ms, q)
    if found is None:
        reason = f"n too small: {len(samples_ms)} samples, p{q * 100:g} needs {smallest_n(q)}"
        return Quantile(None, None, None, reason)
    return Quantile(found.value, found.low, found.high)


@dataclass(frozen=True)
class Difference:
    """What can be said of two latencies.

    Attributes:
        ratio: Median of the first over median of the second.
        p: Of the exact permutation test over the ranks of process medians (Wilcoxon's rank sum).
        verdict: `faster`, `slower` (the first) or `no difference`.
    """

    ratio: float
    p: float
    verdict: str


def compare(first: LatencyResult, second: LatencyResult) -> Difference:
    """Say whether `first` is faster: not unless the test says so at 5 % and the noise floor is exceeded."""
    ours, theirs = first.process_medians_ms, second.process_medians_ms
    ratio = statistics.median(ours) / statistics.median(theirs)
    # On ranks: one process that a neighbour held up must not hide, or make, a difference.
    ranks = midranks((*ours, *theirs))
    p = permutation_test(ranks[: len(ours)], ranks[len(ours) :])
    floor = max(first.noise_floor or 0.0, second.noise_floor or 0.0)
    if p > ALPHA or abs(ratio - 1) <= floor:
        return Difference(ratio, p, "no difference")
    return Difference(ratio, p, "faster" if ratio < 1 else "slower")


Clock = Callable[[Spec], dict[str, Any]]


def time_specs(
    specs: Mapping[str, Spec],
    plan: Plan,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock = time_in_fresh_process,
) -> dict[str, dict[str, LatencyResult]]:
    """Return, by candidate and clock, the latencies of all specs.

    Every candidate runs in `plan.processes` fresh processes; each round takes the candidates in a new random order,
    so that a machine that warms up, throttles or is disturbed treats all alike.

    Args:
        clock: Returns what one process measures of a spec.

    Raises:
        BundleError: A file cannot be loaded.
    """
    arms = arms_of(specs, plan)
    runs = run_arms(arms, plan, seed=seed, progress=progress, clock=clock)
    found = {
        name: {clock: latency_of(name, clock, spec, runs[name], plan.enough) for clock in spec.clocks}
        for name, spec in arms.items()
    }
    again = found.pop(AGAIN, None)
    return found if again is None else _with_floor(found, again)


AGAIN = "\0again"  # no file has this name


def arms_of(specs: Mapping[str, Spec], plan: Plan) -> dict[str, Spec]:
    """Return what is run: the specs, and with a noise floor the first once more under the name `AGAIN`."""
    if not plan.noise_floor or not specs:
        return dict(specs)
    return {**specs, AGAIN: replace(next(iter(specs.values())), clocks=(MODEL,))}


def run_arms(
    arms: Mapping[str, Spec],
    plan: Plan,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    problems: dict[str, str] | None = None,
    clock: Clock = time_in_fresh_process,
) -> dict[str, list[dict[str, Any]]]:
    """Return, for every arm, what each of its processes measured by clock.

    Args:
        problems: Takes, by name, why an arm failed; it is then not run again, and the others go on.
        clock: As `time_specs`.

    Raises:
        BundleError: A file cannot be loaded, and there is no `problems`.
    """
    order = random_order(list(arms), plan.processes, seed)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for done, name in enumerate(order):
        if problems is None:
            runs[name].append(clock(replace(arms[name], effort=plan.effort))["clocks"])
        elif name not in problems:
            try:
                runs[name].append(clock(replace(arms[name], effort=plan.effort))["clocks"])
            except (FlyweightError, FlyweightBug) as error:
                problems[name] = str(error).splitlines()[0]
        if progress:
            progress(done + 1, len(order))
    return runs


def random_order(names: Sequence[str], rounds: int, seed: int) -> list[str]:
    """Return every name once a round, each round in its own random order."""
    generator = random.Random(seed)
    return [name for _ in range(rounds) for name in generator.sample(names, len(names))]


def noise_floor(medians_ms: Sequence[float]) -> float:
    """Return the relative difference that 95 % of the splits of one file's processes into two halves stay within."""
    values = np.array(medians_ms)
    half = len(values) // 2
    masks = [np.isin(np.arange(len(values)), chosen) for chosen in combinations(range(len(values)), half)]
    differences = [abs(np.median(values[mask]) - np.median(values[~mask])) for mask in masks]
    return float(np.quantile(differences, 0.95) / np.median(values))


def latency_of(
    name: str, clock: str, spec: Spec, runs: Sequence[dict[str, Any]], wanted: int = FULL_N
) -> LatencyResult:
    """Return the latency by one clock over several processes, each the `clocks` that `time_in_fresh_process` gave.

    Args:
        wanted: A net with fewer samples than this, and than 299, is slow: p50 only.
    """
    timed = [run[clock] for run in runs]
    samples = tuple(tuple(ns / 1e6 for ns in one["samples_ns"]) for one in timed)
    return LatencyResult(
        name=name,
        clock=clock,
        backend=spec.backend,
        threads=spec.threads,
        samples_ms=samples,
        steady=all(one["steady"] for one in timed),
        warmup_runs=sum(one["warmup_runs"] for one in timed),
        slow=sum(map(len, samples)) < min(FULL_N, wanted),
        cpu_share=min((one["cpu_share"] for one in timed if one["cpu_share"] is not None), default=None),
    )


def _with_floor(
    found: dict[str, dict[str, LatencyResult]], again: dict[str, LatencyResult]
) -> dict[str, dict[str, LatencyResult]]:
    first = next(iter(found.values()))
    floors = {
        clock: noise_floor((*first[clock].process_medians_ms, *again[clock].process_medians_ms)) for clock in again
    }
    return {
        name: {clock: replace(result, noise_floor=floors.get(clock)) for clock, result in results.items()}
        for name, results in found.items()
    }


def model_spec(path: Path, threads: int, backend: str = DEFAULT) -> Spec:
    """Return the spec of a bare model file by the model clock; the images are noise."""
    return Spec(str(path), backend, threads, clocks=(MODEL,))
