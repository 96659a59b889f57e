"""What `measure` says of speed over batch sizes, backends, threads and loads, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flyweight.measure.batches import LeftOut, Timed
from flyweight.measure.knee import WITHIN, knee, saturation
from flyweight.measure.latency import Quantile
from flyweight.measure.load import LoadRow
from flyweight.runtime.environment import environment
from flyweight.runtime.placement import Node


class Row(BaseModel):
    """A frozen row of plain values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EngineRow(Row):
    """Whether a backend runs a model, what it answers, and on which provider each node really runs.

    Attributes:
        error: Why it does not run; the rest is then empty.
        how: What the backend says of how it runs it, such as whether CUDA graphs are used.
        asked: The provider that all nodes were meant for; `elsewhere` are those that run on another.
        reference: `golden`: the bundle's logits; else the backend whose logits on the same noise are compared with.
        top1_agreement: Share of `n` images with the same best class.
        largest_difference: Of a logit; null when not finite.
        within: The largest difference is within the variant's `tolerance`; null without one.
    """

    model: str
    precision: str | None
    backend: str
    error: str | None = None
    how: str = ""
    asked: str = ""
    nodes: int = 0
    elsewhere: tuple[Node, ...] = ()
    reference: str = ""
    n: int = 0
    top1_agreement: float | None = None
    largest_difference: float | None = None
    tolerance: float | None = None
    within: bool | None = None


class BatchRow(Row):
    """One cell of the table.

    Attributes:
        n: Runs timed, in `processes` fresh processes; with fewer than 299 the latency is p50 only.
        p50, p90, p99: Latency of a whole batch with its order-statistic 95 % interval, or the reason why there is none.
        device_p50: The same work by the device's own clock (CUDA events); null on the CPU.
        images_per_second: From runs of its own; the median of the processes, with the lowest and highest of them.
        memory_peak_bytes: Of a fresh process that runs this batch; `increment` is over an empty runner.
        disturbed: Other programs took a tenth or more of the time.
    """

    model: str
    precision: str | None
    backend: str
    threads: int
    batch: int
    n: int
    processes: int
    p50: Quantile
    p90: Quantile
    p99: Quantile
    device_p50: Quantile | None
    images_per_second: float
    images_per_second_low: float
    images_per_second_high: float
    memory_peak_bytes: int | None
    memory_increment_bytes: int | None
    steady: bool
    disturbed: bool


class CurveRow(Row):
    """Where larger batches stop paying on one curve.

    Attributes:
        saturation_batch: The smallest with a throughput within 5 % of the best one.
        knee_batch: The knee of throughput against batch (Kneedle), for the range measured; null with a reason.
    """

    model: str
    backend: str
    threads: int
    best_images_per_second: float
    saturation_batch: int
    knee_batch: int | None
    reason: str | None = None


class Sweep(Row):
    """What `flyweight measure` prints with --json when batches, backends or scenarios are asked for.

    Attributes:
        left_out: What was asked for and not measured, each with the reason.
        notes: What a reader must know of these numbers.
    """

    kind: Literal["sweep"] = "sweep"
    name: str
    quick: bool
    engines: tuple[EngineRow, ...]
    batches: tuple[BatchRow, ...] = ()
    curves: tuple[CurveRow, ...] = ()
    loads: tuple[LoadRow, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    conditions: dict[str, Any] = Field(default_factory=environment)


def batch_row(one: Timed, precision: str | None) -> BatchRow:
    """Return what the table says of a cell."""
    cell, latency = one.cell, one.latency
    return BatchRow(
        model=cell.model,
        precision=precision,
        backend=cell.backend,
        threads=cell.threads,
        batch=cell.batch,
        n=latency.n,
        processes=len(latency.samples_ms),
        p50=latency.quantile(0.5),
        p90=latency.quantile(0.9),
        p99=latency.quantile(0.99),
        device_p50=one.device.quantile(0.5) if one.device else None,
        images_per_second=one.rate,
        images_per_second_low=min(one.images_per_second),
        images_per_second_high=max(one.images_per_second),
        memory_peak_bytes=one.memory.peak_bytes if one.memory else None,
        memory_increment_bytes=one.memory.increment_bytes if one.memory else None,
        steady=latency.steady,
        disturbed=latency.disturbed,
    )


def curve_rows(rows: Sequence[BatchRow]) -> list[CurveRow]:
    """Return saturation and knee of each model on each backend with each number of threads."""
    curves: dict[tuple[str, str, int], list[BatchRow]] = {}
    for row in sorted(rows, key=lambda row: row.batch):
        curves.setdefault((row.model, row.backend, row.threads), []).append(row)
    order = dict.fromkeys((row.model, row.backend, row.threads) for row in rows)
    return [_curve_row(*curve, curves[curve]) for curve in order]


def _curve_row(model: str, backend: str, threads: int, members: Sequence[BatchRow]) -> CurveRow:
    sizes, rates = [row.batch for row in members], [row.images_per_second for row in members]
    bend, reason = None, "fewer than three batches"
    if len(sizes) >= 3:
        flat = max(rates) <= rates[0] / (1 - WITHIN)
        bend = None if flat else knee(sizes, rates)
        reason = "saturated from the smallest batch on" if flat else "throughput does not bend"
    return CurveRow(
        model=model, backend=backend, threads=threads, best_images_per_second=max(rates),
        saturation_batch=saturation(sizes, rates), knee_batch=None if bend is None else int(bend),
        reason=reason if bend is None else None,
    )  # fmt: skip
