"""`flyweight measure --batch … --backend … --scenario …`: speed over batch sizes, backends, threads and loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from flyweight.errors import BundleError, FlyweightError
from flyweight.measure.batches import Cell, Deadline, LeftOut, Progress, Timed, first_look, time_cells
from flyweight.measure.knee import WITHIN, knee, saturation
from flyweight.measure.latency import Quantile
from flyweight.measure.load import FULL_LOAD, QUICK_LOAD, LoadRow, run_load
from flyweight.runtime.backends import DEFAULT, available, import_backend, load_backend
from flyweight.runtime.bundle import GOLDEN_IMAGES, Bundle, Variant
from flyweight.runtime.environment import environment, usable_cores
from flyweight.runtime.load import MULTI_STREAM, OFFLINE, SCENARIOS, SERVER, STREAM_IMAGES
from flyweight.runtime.placement import Node, placement
from flyweight.runtime.timing import images_of

ALL = "all"
OFFLINE_BATCHES = (1, 8, 32, 128)  # that offline chooses from where no table was asked for


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


@dataclass(frozen=True)
class Model:
    """A model file to sweep: a variant of a bundle, with golden images and logits, or a bare .onnx file.

    Attributes:
        backend: That it is run with where none is asked for.
    """

    name: str
    file: Path
    backend: str = DEFAULT
    precision: str | None = None
    images: Path | None = None
    golden: Path | None = None
    tolerance: float | None = None


def sweep(
    paths: Path | str | Sequence[Path | str],
    *,
    batches: Sequence[int] = (1,),
    backends: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    scenarios: Sequence[str] = (),
    bound_ms: float | None = None,
    workers: int = 1,
    variant: str | None = None,
    minutes: float | None = None,
    quick: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sweep:
    """Return the speed of bundles (all variants, or the one that is named) or bare .onnx files on this machine.

    Args:
        paths: Bundles as folder or .zip, or .onnx files, which are run on noise.
        batches: Of the table; none for no table.
        backends: Names, or `all` that this machine has; without any, what each bundle was made for.
        scenarios: Of `single-stream`, `multi-stream`, `server`, `offline`.
        bound_ms: Of the latency's 99th percentile under server.
        workers: That answer server's and offline's queries, each with a model of its own.
        minutes: For all of it; what does not fit is left out and named.
        quick: One process a cell, few samples, shorter loads: for a first look.

    Raises:
        BundleError: Damaged, an unknown backend or scenario, or a number below 1; a model that takes one batch only was
            asked for another.
        MissingExtraError: A backend was named that is not installed.
    """
    _refuse_impossible(batches, threads, scenarios, bound_ms, workers)
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    opened = {path: Bundle.open(path) for path in given if path.suffix != ".onnx"}  # kept: a .zip's folder goes with it
    models = [model for path in given for model in _models(path, opened.get(path), variant, alone=len(given) == 1)]
    asked = [(model, name) for model in models for name in _backends(backends, model)]
    for name in {name for _, name in asked}:
        import_backend(name)
    sizes = {*batches, *((STREAM_IMAGES,) if MULTI_STREAM in scenarios else ())}
    engines = [_engine(model, name, sizes) for model, name in asked]
    deadline = Deadline(minutes)
    cells, left_out = _cells(asked, engines, threads, batches)
    timed, more = time_cells(cells, deadline=deadline, quick=quick, seed=seed, progress=progress)
    curves, _ = _cells(asked, engines, threads, (1,))
    loads, unloaded = _loads(curves, timed, scenarios, bound_ms, workers, deadline, quick, progress)
    precisions = {model.name: model.precision for model in models}
    rows = tuple(batch_row(one, precisions[one.cell.model]) for one in timed)
    return Sweep(
        name=", ".join(opened[path].name if path in opened else path.name for path in given),
        quick=quick,
        engines=tuple(engines),
        batches=rows,
        curves=tuple(curve_rows(rows)),
        loads=tuple(loads),
        left_out=(*left_out, *more, *unloaded),
        notes=tuple(_notes(threads, workers, scenarios, quick, timed)),
    )


def _refuse_impossible(
    batches: Sequence[int], threads: Sequence[int], scenarios: Sequence[str], bound_ms: float | None, workers: int
) -> None:
    for name, numbers in (("batch", batches), ("threads", threads), ("workers", (workers,))):
        low = [number for number in numbers if number < 1]
        if low:
            raise BundleError(f"{name} is {low[0]}", do=f"measure with --{name} 1 or more")
    unknown = [name for name in scenarios if name not in SCENARIOS]
    if unknown:
        raise BundleError(f"unknown scenario {unknown[0]!r}", do=f"use one of {', '.join(SCENARIOS)}")
    if SERVER in scenarios and bound_ms is None:
        raise BundleError("server needs a bound of the latency", do="add --bound 5ms, or what your users put up with")


def _models(path: Path, bundle: Bundle | None, variant: str | None, *, alone: bool) -> list[Model]:
    if bundle is None:
        if not path.is_file():
            raise BundleError(f"there is no file {str(path)!r}", do="give a bundle or an .onnx file")
        return [Model(path.name if alone else str(path), path)]
    chosen = [bundle.variant(variant)] if variant else list(bundle.variants.values())
    return [_variant_model(bundle, one, one.name if alone else f"{bundle.name} {one.name}") for one in chosen]


def _variant_model(bundle: Bundle, variant: Variant, name: str) -> Model:
    images = bundle.path / GOLDEN_IMAGES
    return Model(
        name, variant.file, variant.backend, variant.precision, images, variant.golden, variant.tolerance
    )  # fmt: skip


def _backends(names: Sequence[str], model: Model) -> tuple[str, ...]:
    if not names:
        return (model.backend,)
    return tuple(dict.fromkeys(one for name in names for one in (available() if name == ALL else (name,))))


def _engine(model: Model, name: str, sizes: set[int]) -> EngineRow:
    """Return whether the backend runs the model and what it answers, in this process."""
    row = EngineRow(model=model.name, precision=model.precision, backend=name)
    try:
        engine = load_backend(name, model.file)
    except FlyweightError as error:
        return row.model_copy(update={"error": error.what})
    _refuse_other_batches(model, engine.only_batch, sizes)
    images = images_of(str(model.images) if model.images else None, engine.shape)
    try:
        found = _logits(engine.run, images, engine.only_batch)
        placed = placement(model.file, name)
        expected = np.load(model.golden) if model.golden else _default_logits(model, images)
    except FlyweightError as error:
        return row.model_copy(update={"error": error.what})
    return EngineRow(
        **row.model_dump(include={"model", "precision", "backend"}),
        how=getattr(engine, "how", ""),
        asked=placed.asked,
        nodes=len(placed.nodes),
        elsewhere=placed.elsewhere,
        reference="golden" if model.golden else DEFAULT,
        **agreement(found, expected, model.tolerance),
    )


def agreement(found: np.ndarray, expected: np.ndarray, tolerance: float | None) -> dict[str, Any]:
    """Return how far logits (N, K) agree with those expected: in the best class, and in their largest difference."""
    finite = found.shape == expected.shape and bool(np.isfinite(found).all())
    same = float(np.mean(found.argmax(1) == expected.argmax(1))) if found.shape == expected.shape else None
    error = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) if finite else None
    within = None if tolerance is None else error is not None and error <= tolerance
    return {
        "n": len(found), "top1_agreement": same, "largest_difference": error, "tolerance": tolerance, "within": within,
    }  # fmt: skip


def _default_logits(model: Model, images: np.ndarray) -> np.ndarray:
    engine = load_backend(DEFAULT, model.file)
    return _logits(engine.run, images, engine.only_batch)


def _logits(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, only_batch: int | None) -> np.ndarray:
    step = only_batch or len(images)
    whole = range(0, len(images) - step + 1, step)
    return np.concatenate([np.array(run(np.ascontiguousarray(images[i : i + step]))) for i in whole])


def _refuse_other_batches(model: Model, only_batch: int | None, sizes: set[int]) -> None:
    others = sorted(sizes - {only_batch})
    if only_batch is not None and others:
        raise BundleError(
            f"{str(model.file.name)!r} takes {only_batch} image(s) at a time and no other number; asked for "
            f"{', '.join(map(str, others))}",
            do=f"measure with --batch {only_batch}, or export the model with a free batch (flyweight export does)",
        )


def _cells(
    asked: Sequence[tuple[Model, str]], engines: Sequence[EngineRow], threads: Sequence[int], batches: Sequence[int]
) -> tuple[list[Cell], list[LeftOut]]:
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for (model, name), engine in zip(asked, engines, strict=True):
        if engine.error is not None:
            left_out.append(LeftOut(f"{model.name} on {name}", engine.error))
            continue
        images = str(model.images) if model.images else None
        cells += [Cell(model.name, model.file, name, t, b, images) for t in threads for b in batches]
    return list(dict.fromkeys(cells)), left_out


def _loads(
    curves: Sequence[Cell],
    timed: Sequence[Timed],
    scenarios: Sequence[str],
    bound_ms: float | None,
    workers: int,
    deadline: Deadline,
    quick: bool,
    progress: Progress | None,
) -> tuple[list[LoadRow], list[LeftOut]]:
    rows: list[LoadRow] = []
    left_out: list[LeftOut] = []
    todo = [(curve, scenario) for curve in curves for scenario in scenarios]
    for done, (curve, scenario) in enumerate(todo):
        what = f"{scenario} of {curve.model}, {curve.backend}, {curve.threads} thread(s)"
        if progress:
            progress(what, done, len(todo))
        if deadline.seconds_left <= 0:
            left_out.append(LeftOut(what, deadline.why))
            continue
        try:
            cell = replace(curve, batch=_best_batch(curve, timed)) if scenario == OFFLINE else curve
            patience = QUICK_LOAD if quick else FULL_LOAD
            rows.append(
                run_load(scenario, cell, workers=workers, bound_ms=bound_ms, patience=patience, deadline=deadline)
            )
        except FlyweightError as error:
            left_out.append(LeftOut(what, error.what))
    return rows, left_out


def _best_batch(curve: Cell, timed: Sequence[Timed]) -> int:
    """Return the batch of the table with the highest throughput; without a table, of a first look at a few."""
    rates = {one.cell.batch: one.rate for one in timed if one.cell.curve == curve}
    if not rates:
        only = load_backend(curve.backend, curve.file).only_batch
        cells = [replace(curve, batch=size) for size in ((only,) if only else OFFLINE_BATCHES)]
        paces, _ = first_look(cells, Deadline())
        rates = {cell.batch: cell.batch / pace for cell, (pace, _) in paces.items()}
    return max(rates, key=lambda batch: (rates[batch], -batch))


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


def _notes(
    threads: Sequence[int], workers: int, scenarios: Sequence[str], quick: bool, timed: Sequence[Timed]
) -> list[str]:
    cores, most = usable_cores(), max(threads) * workers
    notes = []
    if most > cores:
        notes.append(f"{most} threads were asked for, and this process may use {cores} core(s): they share them")
    disturbed = sum(one.latency.disturbed for one in timed)
    if disturbed:
        notes.append(f"other programs took a tenth or more of the time in {disturbed} of {len(timed)} cells")
    if scenarios:
        seconds = (QUICK_LOAD if quick else FULL_LOAD).seconds
        notes.append(f"loads ran for about {seconds:g} s each, where MLPerf asks for 600 s: no MLPerf results")
    if quick:
        notes.append("quick: one process a cell and few samples")
    return notes
