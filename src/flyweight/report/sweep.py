"""The page of a sweep: latency, throughput and memory against batch, and latency against rate under load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flyweight.files import write_json, write_text
from flyweight.measure.load import LoadRow
from flyweight.measure.table import BatchRow, Sweep
from flyweight.report.build import ReportFiles, draw_page
from flyweight.report.figures import Figure, escaped, log_ticks

COLOURS = ("accent", "second", "warn", "ink", "muted")  # of the models and backends, in turn
DASHES = ("solid", "dash", "dot", "dashdot")  # of the numbers of threads

SECTIONS = {
    "engines": "Backends: what they answer, and where each node runs",
    "batches": "Latency, throughput and memory by batch",
    "curves": "Where larger batches stop paying",
    "loads": "Under load",
    "left-out": "Not measured",
    "conditions": "Conditions",
}


def build_sweep_report(found: Sweep, out: Path) -> ReportFiles:
    """Write `report.json` and the self-contained `report.html` into the folder `out`.

    Raises:
        MissingExtraError: Jinja2 or Plotly is not installed (report.json is written all the same).
        OutputError: The folder cannot be written.
    """
    files = ReportFiles(Path(out) / "report.json", Path(out) / "report.html")
    write_json(files.json, found.model_dump(mode="json"))
    write_text(files.html, render_sweep(found))
    return files


def render_sweep(found: Sweep) -> str:
    """Return the page as one HTML text. Raises MissingExtraError."""
    has = {"batches": found.batches, "curves": found.curves, "loads": found.loads, "left-out": found.left_out}
    shown = {name: title for name, title in SECTIONS.items() if has.get(name, True)}
    why = dict.fromkeys(SECTIONS, "")
    return draw_page("sweep.html.j2", draw_sweep(found), found=found, sections=shown, why_absent=why)


def draw_sweep(found: Sweep) -> dict[str, Figure]:
    """Return {id of the element: figure}; what has nothing to show is left out."""
    figures: dict[str, Figure] = {}
    if found.batches:
        figures["plot-latency"] = _against_batch(found.batches, "latency p50 of a batch, ms", _latency)
        figures["plot-throughput"] = _against_batch(found.batches, "images per second", _throughput)
        figures["plot-memory"] = _against_batch(found.batches, "peak memory of the process, MB", _memory)
    served = [row for row in found.loads if row.trials]
    if served:
        figures["plot-server"] = _against_rate(served)
    return figures


Point = tuple[float | None, float | None, float | None]  # value, low, high


def _latency(row: BatchRow) -> Point:
    return row.p50.ms, row.p50.low_ms, row.p50.high_ms


def _throughput(row: BatchRow) -> Point:
    return row.images_per_second, row.images_per_second_low, row.images_per_second_high


def _memory(row: BatchRow) -> Point:
    value = None if row.memory_peak_bytes is None else row.memory_peak_bytes / 1e6
    return value, value, value


def _against_batch(rows: Sequence[BatchRow], title: str, point: Callable[[BatchRow], Point]) -> Figure:
    """Return one line a model, backend and number of threads, both axes logarithmic; whiskers are the intervals."""
    lines: dict[tuple[str, str, int], list[BatchRow]] = {}
    for row in rows:
        lines.setdefault((row.model, row.backend, row.threads), []).append(row)
    data = [
        _line(name, sorted(members, key=lambda row: row.batch), point, _style(name, list(lines)))
        for name, members in lines.items()
    ]
    sizes = sorted({row.batch for row in rows})
    ticks = {"tickvals": sizes, "ticktext": [str(size) for size in sizes]}
    values = [value for trace in data for value in trace["y"]]
    layout = {
        "xaxis": {"title": {"text": "images in a batch"}, "type": "log", **ticks},
        "yaxis": {"title": {"text": title}, "type": "log", **(log_ticks(values) if values else {})},
        "height": 400,
        "showlegend": True,
    }
    return {"data": data, "layout": layout}


def _line(
    name: tuple[str, str, int], rows: Sequence[BatchRow], point: Callable[[BatchRow], Point], style: dict[str, str]
) -> Figure:
    known = [(row.batch, *point(row)) for row in rows if point(row)[0] is not None]
    values = [value or 0.0 for _, value, _, _ in known]
    return {
        "type": "scatter", "mode": "lines+markers", "name": _label(*name),
        "x": [batch for batch, *_ in known], "y": values,
        "error_y": {
            "type": "data", "symmetric": False, "color": "line", "thickness": 1, "width": 0,
            "array": [(high or value) - value for value, (*_, high) in zip(values, known, strict=True)],
            "arrayminus": [value - (low or value) for value, (*_, low, _) in zip(values, known, strict=True)],
        },
        "line": {"width": 2, **style}, "marker": {"color": style["color"], "size": 7},
        "hovertemplate": "batch %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    }  # fmt: skip


def _against_rate(rows: Sequence[LoadRow]) -> Figure:
    """Return the p99 of server against the rate of arrivals: full where the bound held, hollow where it did not."""
    data: list[Figure] = []
    names = [(row.model, row.backend, row.threads) for row in rows]
    for row, name in zip(rows, names, strict=True):
        trials = sorted((trial for trial in row.trials if trial.p99.ms is not None), key=lambda trial: trial.rate)
        style = _style(name, names)
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": _label(*name), "line": {"width": 1.5, **style},
            "x": [trial.rate for trial in trials], "y": [trial.p99.ms for trial in trials],
            "marker": {"color": style["color"], "size": 9,
                       "symbol": ["circle" if trial.holds else "circle-open" for trial in trials]},
            "hovertext": [f"{trial.rate:,.4g}/s: p99 {trial.p99.ms:.4g} ms, {trial.late} of {trial.n} late"
                          for trial in trials],
            "hoverinfo": "text",
        })  # fmt: skip
    shapes = [
        {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": bound, "y1": bound,
         "line": {"color": "warn", "width": 1.5, "dash": "dash"},
         "label": {"text": "bound", "textposition": "end", "font": {"color": "warn", "size": 11}}}
        for bound in sorted({row.bound_ms for row in rows if row.bound_ms is not None})
    ]  # fmt: skip
    values = [value for trace in data for value in trace["y"]]
    yaxis = {"title": {"text": "latency p99 from when a query was due, ms"}, "type": "log"}
    layout = {
        "xaxis": {"title": {"text": "queries per second"}, "rangemode": "tozero"},
        "yaxis": {**yaxis, **(log_ticks(values) if values else {})},
        "shapes": shapes, "height": 400, "showlegend": True,
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _style(name: tuple[str, str, int], names: Sequence[tuple[str, str, int]]) -> dict[str, str]:
    """Return the colour of the model and backend, and the dash of the threads."""
    engines = list(dict.fromkeys(one[:2] for one in names))
    threads = sorted({one[2] for one in names})
    return {
        "color": COLOURS[engines.index(name[:2]) % len(COLOURS)],
        "dash": DASHES[threads.index(name[2]) % len(DASHES)],
    }


def _label(model: str, backend: str, threads: int) -> str:
    return escaped(f"{model}, {backend}, {threads} thread{'s' if threads > 1 else ''}")
