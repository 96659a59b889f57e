"""Latency and throughput against batch size of the eight networks of arXiv:2507.23315, on this processor.

Each is built with 1,000 classes, exported untrained and folded to ONNX, and timed by what `flyweight measure --batch`
uses (docs/measuring.md): fresh processes, warm-up, nothing trimmed. Latency is that of a whole batch. Throughput is
images over the wall time of whole batches, in runs of its own; neither is derived from the other. Parameters and
multiply-accumulates are counted in the file; torch counts them too, and the script ends where the two differ by more
than 1 % (TinyViT's attention biases are a little larger in the file, written out for every pair of places).

Two input sizes, because an hour is short:
    224 px  light networks (under 0.5 GMACs) at every batch; the others up to batch 32
    64 px   the others above batch 32, with the strides of their papers; the smaller batches, which give their curve one
            size and so a knee, where time is left
Batches up to 8 get 299 samples where these take under a minute (p50, p90, p99); all others 30, or as many as
--minutes-per-cell gives, and p50 only. That is one process above batch 8 and two below; where the time allows, two
and three. Memory is not measured here, which would be a process more a cell. Samples and processes are in each row:
throughput is the median of the processes with their range, and with one process there is no range. A cell with fewer
than 6 samples has no p50, only the reason.

    python benchmarks/tuning_seven_latency.py [--plan] [--only NET] [--minutes 55] [--minutes-per-cell 1] [--runs DIR]

Run it on a quiet machine. Batches are timed in four ranges, one after the other: up to 8, 32, 128, 512. Within a
range all networks and backends take turns in random order, so that none has the quiet minutes to itself. Two networks
of each range are in it twice, as if they were two (the A/A arms): what these differ by is noise, and smaller
differences between networks of that range mean nothing.

All calls together take at most 60 minutes of timing: the minutes of each call, also of one that was stopped, are kept
in --runs and subtracted, and cells that do not fit are left out and named. What is planned (from MACs, rather too
long, until a network's pace is known) is 55 of them: the table with ONNX Runtime and one thread and the A/A arms
first; then a second process above batch 8, quickest cells first, and a third below; then the small batches at 64 px;
then batches 1, 8, 64 and 512 of the other backends and of two threads; then the rest. --plan prints this and runs
nothing but the export. A range that was stopped is timed again as a whole; one that is finished is not added to. With
--only: a table of one network, of its own, and nothing is written to results/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from results_file import HERE, write_results

from flyweight.export.counted import counted_params
from flyweight.export.onnx import export_untrained
from flyweight.files import write_text
from flyweight.measure.batches import (
    PROCESSES,
    SMALL_BATCH,
    Cell,
    Deadline,
    LeftOut,
    look_seconds,
    plan_cell,
    time_cells,
)
from flyweight.measure.table import BatchRow, batch_row, curve_rows
from flyweight.models.architecture import Architecture
from flyweight.models.cost import count
from flyweight.runtime.backends import installed
from flyweight.runtime.environment import environment
from flyweight.studies.trial import macs_by_torch

NETS = (
    "convnext_tiny",
    "efficientnetv2_s",
    "mobilenetv3_large_100",
    "mobilevitv2_050",
    "mobilevitv2_075",
    "mobilevitv2_100",
    "repvgg_a2",
    "tiny_vit_21m_224",
)
BATCHES = tuple(2**power for power in range(10))
CLASSES, LARGE, SMALL = 1000, 224, 64
LIGHT_MACS = 0.5e9  # at 224 px
HEAVY_BATCH = 32  # the largest of the others at 224 px
AGREES = 0.01
SPARSE = (1, 8, 64, 512)
RANGES = ((1, 8), (9, 32), (33, 128), (129, 512))  # of batches: timed together, and lost together when killed
LIMIT_MINUTES, PLAN_MINUTES = 60.0, 55.0  # of timing, all calls together
ARMS, AGAIN = 2, " (again)"  # networks of each range that are timed as if they were two
MORE = {1: 2, 2: PROCESSES}  # processes above batch 8, and up to there: the least, and where the time allows
# For the plan alone: MACs a second of one thread, what two are worth, seconds to start a process.
PACE, TWO_THREADS, STARTUP = 35e9, 1.7, {"onnxruntime": 1.0, "openvino": 2.0}
KEY = ("model", "backend", "threads", "batch")


@dataclass(frozen=True)
class Net:
    """One network at one input size, as a file.

    Attributes:
        params, macs: Learned values and multiply-accumulates of one image, counted in the file.
        by_torch: The same two, counted by torch in the folded network.
    """

    name: str
    image_size: int
    file: Path
    params: int
    macs: int
    by_torch: tuple[int, int]

    @property
    def title(self) -> str:
        """Its name in the table."""
        return f"{self.name} {self.image_size} px"


@dataclass(frozen=True)
class Wanted:
    """A cell, in how many processes it is to be timed, and the seconds of one of its runs as far as they are known.

    Attributes:
        core: True for the table itself: the first backend with the first number of threads, and the A/A arms.
    """

    net: Net
    cell: Cell
    processes: int
    core: bool
    pace: float | None = None

    @property
    def range(self) -> tuple[int, int]:
        """The batches that it is timed with."""
        return range_of(self.cell.batch)

    @property
    def run_seconds(self) -> float:
        """Of one batch: as measured before at another size, or from its MACs alone."""
        speed = PACE * (TWO_THREADS if self.cell.threads > 1 else 1.0)
        return self.cell.batch * (self.net.macs / speed if self.pace is None else self.pace)

    @property
    def startup(self) -> float:
        """Seconds to start a process."""
        return STARTUP.get(self.cell.backend, 1.0)

    def seconds(self, slow_seconds: float) -> float:
        """Return what it is expected to take, with a first look where its curve is new."""
        plan = plan_cell(
            self.cell, self.run_seconds, self.startup, self.processes, slow_seconds=slow_seconds, memory=False
        )
        first = self.pace is None and self.range in (RANGES[0], range_of(HEAVY_BATCH + 1))
        return plan.seconds + (self.startup + look_seconds(self.run_seconds) if first else 0.0)


def main() -> None:
    """Export, plan, measure what is missing, print the tables; without --only write results/."""
    options = _options()
    exports: Path = options.runs
    options.runs = folder = exports / f"only-{options.only}" if options.only else exports
    wanted = [name for name in NETS if options.only in (None, name)]
    if not wanted:
        sys.exit(f"--only {options.only}: choose one of {', '.join(NETS)}")
    if options.minutes > LIMIT_MINUTES:
        sys.exit(f"--minutes {options.minutes:g}: the whole table takes at most {LIMIT_MINUTES:g} minutes")
    nets = [net for name in wanted for net in files_of(name, exports)]
    for net in nets:
        print("{}: {:,} parameters, {:,} MACs counted ({:,}, {:,} by torch)".format(
            net.title, net.params, net.macs, *net.by_torch), flush=True)  # fmt: skip
    everything = list(wanted_of(nets, options.batches, options.backends, options.threads))
    slow = 60 * options.minutes_per_cell
    left_out = _measure_all(everything, options, slow)
    if options.plan:
        return
    rows = read_rows(folder / "cells.jsonl")
    print(f"\n{markdown(rows, nets)}\n\n{_noise_shown(noise_of(rows))}")
    for one in left_out:
        print(f"left out: {one.what}: {one.why}")
    if options.only is None and rows:
        print(_write(rows, nets, left_out, options))


def _measure_all(everything: Sequence[Wanted], options: argparse.Namespace, slow: float) -> list[LeftOut]:
    """Plan, print the plan, and time range after range, each planned anew with the paces known by then."""
    cells, ledger = options.runs / "cells.jsonl", options.runs / "minutes.jsonl"
    why: dict[str, LeftOut] = {}
    first = True
    while True:
        rows = read_rows(cells)
        todo, gone = unfinished(everything, rows)
        room = 60 * (options.minutes - minutes_spent(ledger))
        chosen, too_long = choose([with_pace(one, rows) for one in todo], room, slow)
        for one in (*gone, *too_long):
            why.setdefault(one.what, one)
        if first:
            print(plan_text(chosen, too_long, minutes_spent(ledger), options.minutes, slow), flush=True)
        if not chosen or options.plan:
            break
        first = False
        span = min(one.range for one in chosen)
        later = sum(one.seconds(slow) for one in chosen if one.core and one.range != span)
        limit = Deadline(LIMIT_MINUTES - minutes_spent(ledger) - later / 60)
        failed = measure([one for one in chosen if one.range == span], span, slow, cells, ledger, limit)
        why |= {one.what: one for one in failed}
        if not any(row["range"] == list(span) for row in read_rows(cells)):
            break  # nothing of it could be timed
    done = {_key(row) for row in read_rows(cells)}  # with the paces known by then, some fitted after all
    timed = {str(one.cell) for one in everything if cell_key(one.cell) in done}
    return [one for one in why.values() if one.what not in timed]


def _options() -> argparse.Namespace:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(","))

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what would be timed, and for how long, and end")
    parser.add_argument("--only", help="one network; then nothing is written to results/")
    parser.add_argument("--minutes", type=float, default=PLAN_MINUTES, help="of timing, all calls together; 60 at most")
    parser.add_argument("--minutes-per-cell", type=float, default=1.0, help="of samples where 299 take too long")
    parser.add_argument("--batches", type=numbers, default=BATCHES)
    parser.add_argument("--threads", type=numbers, default=(1, 2))
    parser.add_argument("--backends", type=lambda text: tuple(text.split(",")), default=installed())
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "tuning_seven_latency")
    return parser.parse_args()


def files_of(name: str, folder: Path) -> list[Net]:
    """Return the network at 224 px, and where that is heavy at 64 px too, exported where it is not yet."""
    large = exported(name, LARGE, folder)
    return [large] if large.macs < LIGHT_MACS else [large, exported(name, SMALL, folder)]


def exported(name: str, image_size: int, folder: Path) -> Net:
    """Return the file of an untrained, folded network, with its counts checked by torch's.

    Raises:
        SystemExit: An operator is not known to the count, or torch counts others by more than 1 %.
    """
    architecture = Architecture(name, CLASSES, 3, image_size, args={"min_map": 1})
    file = folder / "onnx" / f"{name}-{image_size}.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        export_untrained(architecture, file)
    cost, by_torch = count(file), (counted_params(architecture), macs_by_torch(architecture))
    if cost.unsupported or any(
        abs(mine / theirs - 1) > AGREES for mine, theirs in zip((cost.params, cost.macs), by_torch, strict=True)
    ):
        sys.exit(f"{file}: {cost.params:,} and {cost.macs:,} counted, {by_torch} by torch; unknown: {cost.unsupported}")
    return Net(name, image_size, file, cost.params, cost.macs, by_torch)


def batches_of(net: Net, batches: Sequence[int]) -> tuple[int, ...]:
    """Return the batches that a network is timed with at its size, for the table: see the module."""
    if net.image_size == SMALL:
        return tuple(batch for batch in batches if batch > HEAVY_BATCH)
    return tuple(batch for batch in batches if batch <= HEAVY_BATCH or net.macs < LIGHT_MACS)


def wanted_of(
    nets: Sequence[Net], batches: Sequence[int], backends: Sequence[str], threads: Sequence[int]
) -> Iterator[Wanted]:
    """Yield every cell once, what matters most first: the table, its A/A arms, then the rest."""
    first, *others = [(number, backend) for number in threads for backend in backends]
    some = [batch for batch in batches if batch in SPARSE]
    small = [net for net in nets if net.image_size == SMALL]
    table = [_wanted(net, *first, batch, core=True) for net in nets for batch in batches_of(net, batches)]
    seen: set[Cell] = set()
    for one in (
        *table,
        *_twins(table),
        *(_wanted(net, *first, batch) for net in small for batch in batches),
        *(_wanted(net, *one, batch) for one in others for net in nets for batch in batches_of(net, some)),
        *(_wanted(net, *one, batch) for one in others for net in nets for batch in batches_of(net, batches)),
    ):
        if one.cell not in seen:
            seen.add(one.cell)
            yield one


def _wanted(net: Net, threads: int, backend: str, batch: int, *, core: bool = False) -> Wanted:
    least = 2 if batch <= SMALL_BATCH else 1
    cell = Cell(net.title, net.file, backend, threads, batch)
    return Wanted(net, cell, least if core else MORE[least], core)


def _twins(table: Sequence[Wanted]) -> Iterator[Wanted]:
    """Yield a copy of the quickest cells of each range, of different networks, under a name of their own."""
    for span in RANGES:
        members = sorted((one for one in table if one.range == span), key=lambda one: one.run_seconds)
        quickest = {one.net.title: one for one in reversed(members)}.values()
        for one in sorted(quickest, key=lambda one: one.run_seconds)[:ARMS]:
            yield replace(one, cell=replace(one.cell, model=one.cell.model + AGAIN))


def range_of(batch: int) -> tuple[int, int]:
    """Return the range of batches that a batch is in."""
    return next((low, high) for low, high in RANGES if low <= batch <= high)


def unfinished(wanted: Sequence[Wanted], rows: Sequence[dict[str, Any]]) -> tuple[list[Wanted], list[LeftOut]]:
    """Return the cells of ranges that were not timed yet, and those that were not timed beside the others of theirs."""
    finished, done = {tuple(row["range"]) for row in rows}, {_key(row) for row in rows}
    late = [one.cell for one in wanted if one.range in finished]
    why = "its range of batches is finished; timed alone it could not be compared"
    gone = [LeftOut(str(cell), why) for cell in late if cell_key(cell) not in done]
    return [one for one in wanted if one.range not in finished], gone


def with_pace(one: Wanted, rows: Sequence[dict[str, Any]]) -> Wanted:
    """Return the cell with the seconds an image took at the largest batch of its curve that was timed."""
    curve = (one.cell.model.removesuffix(AGAIN), one.cell.backend, one.cell.threads)
    known = [row for row in rows if (row["model"], row["backend"], row["threads"]) == curve]
    if not known:
        return one
    return replace(one, pace=1 / max(known, key=lambda row: row["batch"])["images_per_second"])


def choose(wanted: Sequence[Wanted], room: float, slow: float) -> tuple[list[Wanted], list[LeftOut]]:
    """Return the cells that fit into `room` seconds, and those that do not.

    Of the table the quickest are taken first; then one process more of each, above batch 8 before the others; then
    what is not the table, in its order.
    """
    core = sorted((one for one in wanted if one.core), key=lambda one: one.seconds(slow))
    chosen: dict[Cell, Wanted] = {}
    left_out: list[LeftOut] = []

    def take(one: Wanted) -> bool:
        nonlocal room
        more = one.seconds(slow) - (chosen[one.cell].seconds(slow) if one.cell in chosen else 0.0)
        if more > room:
            return False
        room -= more
        chosen[one.cell] = one
        return True

    def take_or_say(one: Wanted) -> None:
        if not take(one):
            why = f"about {one.seconds(slow):.0f} s, and the minutes are not enough for all"
            left_out.append(LeftOut(str(one.cell), why))

    for one in core:
        take_or_say(one)
    for least, more in MORE.items():
        for one in core:
            if one.processes == least and one.cell in chosen:
                take(replace(one, processes=more))
    for one in wanted:
        if not one.core:
            take_or_say(one)
    return list(chosen.values()), left_out


def plan_text(chosen: Sequence[Wanted], left_out: Sequence[LeftOut], spent: float, minutes: float, slow: float) -> str:
    """Return what would be timed, range by range, and what would not."""
    lines = [
        f"{len(chosen)} cells to measure of {len(chosen) + len(left_out)}; planned, from MACs where nothing is known:"
    ]
    for low, high in RANGES:
        members = [one for one in chosen if one.range == (low, high)]
        if members:
            took = sum(one.seconds(slow) for one in members) / 60
            runs = sum(one.processes for one in members)
            lines.append(f"  batch {low} to {high}: {len(members)} cells, {runs} processes, {took:.1f} min")
    whole = sum(one.seconds(slow) for one in chosen) / 60
    lines.append(f"  all: {whole:.1f} min, and {spent:.1f} spent by earlier calls, of {minutes:g}")
    return "\n".join([*lines, *(f"  left out: {one.what}: {one.why}" for one in left_out)])


def minutes_spent(ledger: Path) -> float:
    """Return the minutes that all calls so far have timed with these engines' versions, stopped ones too."""
    lines = ledger.read_text("utf-8").splitlines() if ledger.is_file() else []
    calls = [json.loads(line) for line in lines]
    longest: dict[str, float] = {}
    for call in calls:
        if call["versions"] == engines():
            longest[call["call"]] = max(longest.get(call["call"], 0.0), call["seconds"])
    return sum(longest.values()) / 60


def measure(
    members: Sequence[Wanted], span: tuple[int, int], slow_seconds: float, file: Path, ledger: Path, limit: Deadline
) -> list[LeftOut]:
    """Time a range and add its rows to the file; return what could not be measured, each with the reason."""
    start, call = time.monotonic(), f"{span[0]}-{span[1]} {uuid.uuid4()}"

    def note(what: str, done: int, total: int) -> None:
        took = time.monotonic() - start
        with ledger.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"call": call, "seconds": took, "versions": engines()}) + "\n")

    ledger.parent.mkdir(parents=True, exist_ok=True)
    timed, left_out = time_cells(
        [one.cell for one in members],
        deadline=limit,
        processes={one.cell: one.processes for one in members},
        paces={one.cell: (one.run_seconds, one.startup) for one in members if one.pace is not None},
        slow_seconds=slow_seconds,
        memory=False,
        progress=note,
    )
    note("all", 1, 1)
    here = environment()
    sizes = {one.cell: one.net.image_size for one in members}
    more = {"date": here["date"], "load_average": here["load_average"], "range": list(span),
            "range_seconds": time.monotonic() - start, "versions": engines()}  # fmt: skip
    new = [{**batch_row(one, "fp32").model_dump(mode="json"), "image_size": sizes[one.cell], **more} for one in timed]
    there = file.read_text("utf-8") if file.is_file() else ""
    write_text(file, there + "".join(json.dumps(row) + "\n" for row in new))
    for row in new:
        print(
            f"{row['model']}, {row['backend']}, {row['threads']} thread(s), batch {row['batch']}: "
            f"p50 {_shown(row['p50']['ms'])}, {row['images_per_second']:.1f} images/s, n = {row['n']}",
            flush=True,
        )
    return left_out


def noise_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how far the A/A arms are apart: of each pair the relative difference of p50 and of throughput."""
    by_key = {_key(row): row for row in rows}
    found = []
    for key, again in by_key.items():
        once = by_key.get((str(key[0]).removesuffix(AGAIN), *key[1:]))
        if once is None or once is again:
            continue
        both = (once["p50"]["ms"], again["p50"]["ms"])
        found.append({
            "model": once["model"], "range": once["range"], "batch": once["batch"],
            "p50": None if None in both else abs(both[1] / both[0] - 1),
            "images_per_second": abs(again["images_per_second"] / once["images_per_second"] - 1),
        })  # fmt: skip
    return found


def _noise_shown(pairs: Sequence[dict[str, Any]]) -> str:
    lines = ["Noise: what the same file, timed as if it were two, differs by; smaller differences mean nothing."]
    for low, high in RANGES:
        members = [pair for pair in pairs if pair["range"] == [low, high]]
        if members:
            p50 = max((pair["p50"] for pair in members if pair["p50"] is not None), default=None)
            rate = max(pair["images_per_second"] for pair in members)
            shown = "unknown" if p50 is None else f"{p50:.1%}"
            lines.append(f"  batch {low} to {high}: p50 {shown}, images/s {rate:.1%} (largest of {len(members)})")
    return "\n".join(lines)


def _shown(ms: float | None) -> str:
    return "– (too few samples)" if ms is None else f"{ms:.2f} ms"


def engines() -> dict[str, str]:
    """Return the versions that decide speed."""
    found = environment()["versions"]
    return {name: found[name] for name in ("onnxruntime", "openvino", "torch", "timm") if name in found}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the finished cells of these engines' versions; those of others are measured again."""
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [row for row in rows if row["versions"] == engines()]


def cell_key(cell: Cell) -> tuple[Any, ...]:
    """Return what `_key` gives of the cell's row."""
    return (cell.model, cell.backend, cell.threads, cell.batch)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def batch_rows(rows: Sequence[dict[str, Any]]) -> list[BatchRow]:
    """Return the rows as the sweep's, less what this script adds: the A/A arms, and columns of its own."""
    own = [row for row in rows if not row["model"].endswith(AGAIN)]
    return [BatchRow(**{key: row[key] for key in BatchRow.model_fields}) for row in own]


def markdown(rows: Sequence[dict[str, Any]], nets: Sequence[Net]) -> str:
    """Return a table for each backend and number of threads: p50 of a whole batch and images per second."""
    titles = {net.title: net for net in nets}
    shown = [row for row in batch_rows(rows) if row.model in titles]
    sizes = sorted({row.batch for row in shown})
    lines = ["Counted: parameters, MACs. Measured: p50 of a whole batch in ms · images/s."]
    knees = {(one.model, one.backend, one.threads): one for one in curve_rows(shown)}
    for backend, threads in dict.fromkeys((row.backend, row.threads) for row in shown):
        lines += ["", f"{backend}, {threads} thread(s)", ""]
        lines += [f"| network | parameters | MACs | {' | '.join(map(str, sizes))} | knee | saturated |"]
        lines += [f"|{' --- |' * (len(sizes) + 5)}"]
        for title, net in titles.items():
            cells = {
                row.batch: row for row in shown if (row.model, row.backend, row.threads) == (title, backend, threads)
            }
            if cells:
                curve = knees[title, backend, threads]
                middle = " | ".join(_cell(cells.get(size)) for size in sizes)
                knee = "–" if curve.knee_batch is None else str(curve.knee_batch)
                ends = f"{knee} | {curve.saturation_batch}"
                lines.append(f"| {title} | {net.params:,} | {net.macs:,} | {middle} | {ends} |")
    return "\n".join(lines)


def _cell(row: BatchRow | None) -> str:
    if row is None:
        return ""
    return f"{'–' if row.p50.ms is None else f'{row.p50.ms:.4g}'} · {row.images_per_second:.4g}"


def minutes_of(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the wall-clock minutes that measuring took, by range of batches."""
    return {
        f"batch {low} to {high}": round(took / 60, 1)
        for low, high, took in sorted({(*row["range"], row["range_seconds"]) for row in rows})
    }


def _write(
    rows: Sequence[dict[str, Any]], nets: Sequence[Net], left_out: Sequence[LeftOut], options: argparse.Namespace
) -> Path:
    counted = {
        net.title: {"image_size": net.image_size, "params": net.params, "macs": net.macs,
                    "params_macs_by_torch": net.by_torch, "size_bytes": net.file.stat().st_size}
        for net in nets
    }  # fmt: skip
    return write_results(
        "tuning_seven_latency.json",
        {},
        seeds=[0],
        conditions={
            "weights": "untrained, folded, fp32, 1,000 classes",
            "minutes_per_cell": options.minutes_per_cell,
            "wall_minutes": minutes_of(rows),
            "minutes_of_all_calls": round(minutes_spent(options.runs / "minutes.jsonl"), 1),
            "latency": "of a whole batch, model only; noise images",
            "throughput": "images / wall time of whole batches, in runs of its own; median of the row's processes",
            "load_average": list(os.getloadavg()),
        },
        details={
            "counted": counted,
            "cells": list(rows),
            "noise": noise_of(rows),
            "curves": [curve.model_dump(mode="json") for curve in curve_rows(batch_rows(rows))],
            "left_out": [vars(one) for one in left_out],
        },
    )


if __name__ == "__main__":
    main()
