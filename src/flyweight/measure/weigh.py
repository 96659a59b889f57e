"""What model files cost on this machine, by the metrics of a budget: timed side by side, counted, weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.measure.latency import LatencyResult
from flyweight.measure.speed import time_models
from flyweight.models.cost import count
from flyweight.runtime.memory import peak_memory


@dataclass(frozen=True)
class FileCost:
    """One file.

    Attributes:
        values: By metric of a budget: latencies in ms, memory and size in bytes, params, macs, peak_activation (bytes).
        latency: How the latency was taken, with intervals; {} where it was not.
    """

    values: dict[str, float | None]
    latency: dict[str, Any]

    @property
    def disturbed(self) -> bool:
        """True where it was timed while other programs had the processor."""
        return bool(self.latency.get("disturbed"))


def weigh_files(
    files: Sequence[Path],
    *,
    threads: int,
    timed: bool = True,
    memory: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[FileCost]:
    """Return what each file costs, in the order given; latencies are taken interleaved, in one quick run.

    Args:
        threads: Of the runtime.
        timed: False leaves the latencies out.
        memory: True to start fresh processes for the peak of each, too.
        progress: Called with (processes done, processes in all).

    Raises:
        BundleError: A file cannot be loaded.
    """
    timings = time_models(files, threads=threads, quick=True, progress=progress) if timed else [None] * len(files)
    found = []
    for file, timing in zip(files, timings, strict=True):
        values = {**_counted(file), **_latency(timing), **(_memory(file, threads) if memory else {})}
        found.append(FileCost(values, timing.as_dict() if timing else {}))
    return found


def _counted(file: Path) -> dict[str, float | None]:
    cost = count(file)
    return {
        "size": float(file.stat().st_size),
        "params": float(cost.params),
        "macs": float(cost.macs),
        "peak_activation": float(cost.peak_activation_bytes),
    }


def _latency(timing: LatencyResult | None) -> dict[str, float | None]:
    if timing is None:
        return {}
    return {"latency_p50": timing.p50_ms, "latency_p90": timing.p90_ms, "latency_p99": timing.p99_ms}


def _memory(file: Path, threads: int) -> dict[str, float | None]:
    found = peak_memory(file, threads=threads)
    return {"memory": float(found.peak_bytes), "memory_increment": float(found.increment_bytes)}
