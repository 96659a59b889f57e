"""`flyweight measure` with several batches, backends or scenarios: runs the sweep and prints its tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.cli.progress import Bars
from flyweight.measure.latency import Quantile
from flyweight.measure.load import LoadRow
from flyweight.measure.sweep import sweep as run_sweep
from flyweight.measure.table import EngineRow, Sweep

WIDTH = 130  # of a table that is not printed to a terminal


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `1,2,4`, each 1 or more; a usage error names what is none."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isascii() or not part.isdigit() or int(part) < 1:
            raise typer.BadParameter(f"{part!r} is not a whole number of 1 or more", param_hint=f"'{option}'")
    return tuple(dict.fromkeys(map(int, parts)))


def words(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of an option that may be repeated and hold several separated by commas."""
    return tuple(dict.fromkeys(word.strip() for text in texts or () for word in text.split(",") if word.strip()))


def sweep(path: Path, out: Path | None, *, as_json: bool, **asked: Any) -> None:
    """Run the sweep that was asked for, write its report where there is a folder for it, and print it."""
    with Bars(quiet=as_json) as bars:
        found = run_sweep(path, progress=bars.update, **asked)
    if out is not None:
        from flyweight.report.sweep import build_sweep_report

        build_sweep_report(found, out)
    if as_json:
        print(found.model_dump_json())
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    for table in tables(found):
        console.print(table)
    for one in found.left_out:
        console.print(f"not measured: {one.what}: {one.why}", markup=False, highlight=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    if out is not None:
        console.print(f"page: {out / 'report.html'}", markup=False, highlight=False)


def tables(found: Sweep) -> Iterator[Table]:
    """Yield what is printed: the backends, then the table by batch, its curves, and the loads."""
    yield _engines(found)
    if found.batches:
        yield _batches(found)
        yield _curves(found)
    if found.loads:
        yield _loads(found.loads)


def _engines(found: Sweep) -> Table:
    table = _table("model", "backend", "answers", "nodes")
    for row in found.engines:
        table.add_row(escape(row.model), row.backend, escape(_answers(row)), escape(_nodes(row)))
    return table


def _answers(row: EngineRow) -> str:
    if row.error is not None:
        return f"does not run: {row.error}"
    same = "other shape" if row.top1_agreement is None else f"{row.top1_agreement:.1%} same best class of {row.n}"
    worst = "not finite" if row.largest_difference is None else f"{row.largest_difference:.2g}"
    if row.within is None:
        return f"{same}, largest difference {worst} from {row.reference}"
    verdict = "within tolerance" if row.within else "OUTSIDE TOLERANCE of the golden logits"
    return f"{verdict}: {same}, largest difference {worst}, tolerance {row.tolerance:.2g}"


def _nodes(row: EngineRow) -> str:
    if row.error is not None:
        return ""
    if not row.elsewhere:
        return f"all {row.nodes} on {row.asked}"
    kinds = dict.fromkeys(f"{node.op} on {node.provider}" for node in row.elsewhere)
    return f"{len(row.elsewhere)} of {row.nodes} NOT on {row.asked}: {', '.join(kinds)}"


def _batches(found: Sweep) -> Table:
    table = _table("model", "backend", "threads", "batch", "p50 ms", "p90 ms", "p99 ms", "n", "images/s", "MB", "")
    for row in found.batches:
        memory = "–" if row.memory_peak_bytes is None else f"{row.memory_peak_bytes / 1e6:.1f}"
        state = [word for word, said in (("disturbed", row.disturbed), ("not steady", not row.steady)) if said]
        quantiles = (_quantile(q) for q in (row.p50, row.p90, row.p99))
        table.add_row(
            escape(row.model), row.backend, str(row.threads), str(row.batch), *quantiles, str(row.n),
            f"{row.images_per_second:,.0f}", memory, ", ".join(state),
        )  # fmt: skip
    table.caption = "latency of a whole batch, 95 % intervals in brackets; p50 only with fewer than 299 runs"
    return table


def _curves(found: Sweep) -> Table:
    table = _table("model", "backend", "threads", "best images/s", "saturated at batch", "knee at batch")
    for row in found.curves:
        bend = row.reason or "" if row.knee_batch is None else str(row.knee_batch)
        table.add_row(
            escape(row.model), row.backend, str(row.threads), f"{row.best_images_per_second:,.0f}",
            str(row.saturation_batch), bend,
        )  # fmt: skip
    return table


def _loads(rows: Sequence[LoadRow]) -> Table:
    table = _table("scenario", "model", "backend", "threads", "workers", "result", "p50 ms", "p99 ms", "queries")
    for row in rows:
        table.add_row(
            row.scenario, escape(row.model), row.backend, str(row.threads), str(row.workers), escape(_result(row)),
            _quantile(row.p50), _quantile(row.p99), f"{row.n:,} in {row.seconds:.1f} s",
        )  # fmt: skip
    return table


def _result(row: LoadRow) -> str:
    if row.reason is not None:
        return row.reason
    if row.queries_per_second is not None:
        return f"{row.queries_per_second:,.0f} queries/s with p99 within {row.bound_ms:g} ms"
    if row.images_per_second is not None:
        return f"{row.images_per_second:,.0f} images/s in blocks of {row.batch}"
    return f"p{100 * (row.percentile or 0):g} {row.early_stopping_ms:.3g} ms (early stopping, 99 %)"


def _quantile(found: Quantile) -> str:
    return "–" if found.ms is None else escape(f"{found.ms:.3g} [{found.low_ms:.3g}, {found.high_ms:.3g}]")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, caption_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
