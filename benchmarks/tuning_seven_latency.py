"""Latency and throughput against batch size of the eight networks of arXiv:2507.23315, on this processor.

Each is built with 1,000 classes, exported untrained and folded to ONNX, and timed by what `flyweight measure --batch`
uses (docs/measuring.md): fresh processes, warm-up, nothing trimmed. Latency is that of a whole batch. Throughput is
images over the wall time of whole batches, in runs of its own; neither is derived from the other. Parameters and
multiply-accumulates are counted in the file; torch counts them too, and the script ends where the two differ by more
than 1 % (TinyViT's attention biases are a little larger in the file, written out for every pair of places).

Two input sizes, because an hour is short:
    224 px  light networks (under 0.5 GMACs) at every batch; the others up to batch 32
    64 px   the others above batch 32, with the strides of their papers; the smaller batches, which give their curve one
            size and so a knee, after the table is complete
Batches up to 8 get 299 samples in three processes where these take under a minute (p50, p90, p99); all others 30, or as
many as --minutes-per-cell gives, and p50 only; above 8 in one process. The number of samples is in each row. A median
of fewer than 6 has no interval.

    python benchmarks/tuning_seven_latency.py [--only NET] [--minutes 60] [--minutes-per-cell 1] [--runs DIR]

Run it on a quiet machine. ONNX Runtime with one thread comes first, which is the table; then the small batches at
64 px, then batches 1, 8, 64 and 512 of the other backends and of two threads, then the rest. The planned minutes (from
MACs, rather too many) are printed first; nothing is begun that would not end within --minutes, and all that is left out
is named. Stop it anywhere: finished cells are kept in --runs, and the same command with more minutes adds to them. The
minutes that each part took are in the results. With --only nothing is written to results/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
FEW = (8, 32)  # ends of the groups of batches that are timed together: what a kill loses
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
class Group:
    """Cells of one curve that are timed together, interleaved."""

    net: Net
    cells: tuple[Cell, ...]
    processes: int

    def __str__(self) -> str:
        cell = self.cells[0]
        batches = ", ".join(str(one.batch) for one in self.cells)
        return f"{cell.model}, {cell.backend}, {cell.threads} thread(s), batch {batches}"

    def seconds(self, slow_seconds: float) -> float:
        """Return what it is expected to take, from its MACs alone."""
        return sum(
            plan_cell(
                cell, cell.batch * self.net.macs / (PACE * (TWO_THREADS if cell.threads > 1 else 1.0)),
                STARTUP.get(cell.backend, 1.0), self.processes, slow_seconds=slow_seconds,
            ).seconds
            for cell in self.cells
        )  # fmt: skip


def main() -> None:
    """Export, plan, measure what is missing, print the tables; without --only write results/."""
    options = _options()
    folder: Path = options.runs
    kept = read_rows(folder / "cells.jsonl")
    wanted = [name for name in NETS if options.only in (None, name)]
    if not wanted:
        sys.exit(f"--only {options.only}: choose one of {', '.join(NETS)}")
    nets = [net for name in wanted for net in files_of(name, folder)]
    for net in nets:
        print("{}: {:,} parameters, {:,} MACs counted ({:,}, {:,} by torch)".format(
            net.title, net.params, net.macs, *net.by_torch), flush=True)  # fmt: skip
    groups = list(groups_of(nets, options.batches, options.backends, options.threads, {_key(row) for row in kept}))
    slow = 60 * options.minutes_per_cell
    _print_plan(groups, slow)
    deadline = Deadline(options.minutes)
    left_out: list[LeftOut] = []
    for group in groups:
        needed = group.seconds(slow)
        if needed > deadline.seconds_left:
            why = f"about {needed:.0f} s, and {options.minutes:g} minutes are not enough for all"
            left_out.append(LeftOut(str(group), why))
            continue
        left_out += measure(group, slow, folder / "cells.jsonl")
    rows = read_rows(folder / "cells.jsonl")
    print(f"\n{markdown(rows, nets)}")
    for one in left_out:
        print(f"left out: {one.what}: {one.why}")
    if options.only is None and rows:
        print(_write(rows, nets, left_out, options))


def _options() -> argparse.Namespace:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(","))

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one network; then nothing is written to results/")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all of it")
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


def groups_of(
    nets: Sequence[Net],
    batches: Sequence[int],
    backends: Sequence[str],
    threads: Sequence[int],
    done: Iterable[tuple[Any, ...]] = (),
) -> Iterator[Group]:
    """Yield what is to be timed, the first backend with the first number of threads before the others."""
    first, *others = [(number, backend) for number in threads for backend in backends]
    some = [batch for batch in batches if batch in SPARSE]
    small = [net for net in nets if net.image_size == SMALL]
    finished = set(done)
    for (number, backend), members, chosen in (
        (first, nets, lambda net: batches_of(net, batches)),
        (first, small, lambda net: batches),
        *((one, nets, lambda net: batches_of(net, some)) for one in others),
        *((one, nets, lambda net: batches_of(net, batches)) for one in others),
    ):
        for net in members:
            cells = [Cell(net.title, net.file, backend, number, batch) for batch in chosen(net)]
            cells = [cell for cell in cells if (cell.model, backend, number, cell.batch) not in finished]
            finished |= {(cell.model, backend, number, cell.batch) for cell in cells}
            for low, high in zip((0, *FEW), (*FEW, max(BATCHES)), strict=True):
                part = tuple(cell for cell in cells if low < cell.batch <= high)
                if part:
                    yield Group(net, part, PROCESSES if high <= SMALL_BATCH else 1)


def _print_plan(groups: Sequence[Group], slow: float) -> None:
    parts: dict[str, float] = {}
    for group in groups:
        cell = group.cells[0]
        key = f"{cell.backend}, {cell.threads} thread(s)"
        parts[key] = parts.get(key, 0.0) + group.seconds(slow) / 60
    print(f"{sum(len(group.cells) for group in groups)} cells to measure, planned from their MACs alone:")
    for key, minutes in parts.items():
        print(f"  {key}: {minutes:.0f} min")
    print(f"  all: {sum(parts.values()):.0f} min", flush=True)


def measure(group: Group, slow_seconds: float, file: Path) -> list[LeftOut]:
    """Time a group and add its rows to the file; return what could not be measured, each with the reason."""
    start = time.monotonic()
    timed, left_out = time_cells(list(group.cells), processes=group.processes, slow_seconds=slow_seconds)
    here = environment()
    more = {"image_size": group.net.image_size, "date": here["date"], "load_average": here["load_average"],
            "group": str(group), "group_seconds": time.monotonic() - start}  # fmt: skip
    new = [{**batch_row(one, "fp32").model_dump(mode="json"), **more, "versions": engines()} for one in timed]
    there = file.read_text("utf-8") if file.is_file() else ""
    write_text(file, there + "".join(json.dumps(row) + "\n" for row in new))
    for row in new:
        print(
            f"{row['model']}, {row['backend']}, {row['threads']} thread(s), batch {row['batch']}: "
            f"p50 {_shown(row['p50']['ms'])}, {row['images_per_second']:.1f} images/s, n = {row['n']}",
            flush=True,
        )
    return left_out


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


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def batch_rows(rows: Sequence[dict[str, Any]]) -> list[BatchRow]:
    """Return the rows as the sweep's, less what this script adds."""
    return [BatchRow(**{key: row[key] for key in BatchRow.model_fields}) for row in rows]


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
    """Return the wall-clock minutes that measuring took, by backend and threads."""
    seconds = {
        (row["group"], row["date"]): (f"{row['backend']}, {row['threads']} thread(s)", row["group_seconds"])
        for row in rows
    }
    parts: dict[str, float] = {}
    for part, took in seconds.values():
        parts[part] = parts.get(part, 0.0) + took / 60
    return {part: round(minutes, 1) for part, minutes in parts.items()}


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
            "latency": "of a whole batch, model only; noise images",
            "throughput": "images / wall time of whole batches, in runs of its own; median of processes",
            "load_average": list(os.getloadavg()),
        },
        details={
            "counted": counted,
            "cells": list(rows),
            "curves": [curve.model_dump(mode="json") for curve in curve_rows(batch_rows(rows))],
            "left_out": [vars(one) for one in left_out],
        },
    )


if __name__ == "__main__":
    main()
