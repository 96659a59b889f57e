"""`flyweight measure --batch … --backend … --scenario …`: speed over batch sizes, backends, threads and loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flyweight.errors import BundleError, FlyweightError
from flyweight.measure.batches import Cell, Deadline, LeftOut, Progress, Timed, first_look, time_cells
from flyweight.measure.engines import Model, backends_of, models_of, try_engine
from flyweight.measure.load import FULL_LOAD, QUICK_LOAD, LoadRow, run_load
from flyweight.measure.table import EngineRow, Sweep, batch_row, curve_rows
from flyweight.runtime.backends import import_backend, load_backend
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.load import MULTI_STREAM, OFFLINE, SCENARIOS, SERVER, STREAM_IMAGES

OFFLINE_BATCHES = (1, 8, 32, 128)  # that offline chooses from where no table was asked for


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
    models = [model for path in given for model in models_of(path, opened.get(path), variant, alone=len(given) == 1)]
    asked = [(model, name) for model in models for name in backends_of(backends, model)]
    for name in {name for _, name in asked}:
        import_backend(name)
    sizes = {*batches, *((STREAM_IMAGES,) if MULTI_STREAM in scenarios else ())}
    engines = [try_engine(model, name, sizes) for model, name in asked]
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
