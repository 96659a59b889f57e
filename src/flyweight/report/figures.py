"""The plots as plain Plotly values. Colours are names ("accent") that the page replaces by those of its theme.

Plotly reads a little HTML in labels, so every word of the user's is escaped here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from flyweight.report import words
from flyweight.report.facts import CandidateFacts, Facts, LearningCurve

Figure = dict[str, Any]
SHOWN_COUNTS = 15  # classes up to which the matrix shows its counts
TICKS = 25  # class names along one axis
COLOURS = {"pick": "accent", "finalist": "second"}  # the others are "muted"
LEGEND = {"accent": "pick", "second": "finalist", "muted": "stopped early"}


def draw(facts: Facts) -> dict[str, Figure]:
    """Return {id of the element: {data, layout, ...}}; what has nothing to show is left out."""
    figures: dict[str, Figure] = {}
    plotted = [c for c in facts.candidates if c.accuracy.value is not None and c.latency_p90_ms.value is not None]
    if plotted:
        limits = [check.limit for check in facts.budget if check.metric == "latency_p90"]
        figures["plot-pareto"] = pareto(plotted, facts.metric, limits)
    curves = [curve for curve in facts.curves if curve.rows]
    if curves:
        kinds = {candidate.name: candidate.kind for candidate in facts.candidates}
        if facts.pick:
            kinds[facts.pick.name] = "pick"
        figures["plot-accuracy"] = learning(curves, kinds, "val_accuracy")
        figures["plot-loss"] = learning(curves, kinds, "val_loss")
    if facts.confusion:
        figures["plot-confusion"] = confusion(facts.classes, facts.confusion)
    if facts.calibration and facts.calibration.bins:
        figures["plot-calibration"] = calibration(facts)
    return figures


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (latency, accuracy) that no other beats in both, by growing latency."""
    best, kept = -math.inf, []
    for latency, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            kept.append((latency, accuracy))
            best = accuracy
    return kept


def pareto(candidates: Sequence[CandidateFacts], metric: str, limits: Sequence[float] = ()) -> Figure:
    """Return accuracy (%) against p90 latency (ms): size of the file as bubble, the front as a line, limits dashed."""
    points = [(_value(c.latency_p90_ms.value), 100 * _value(c.accuracy.value)) for c in candidates]
    line = front(points)
    largest = max((c.size_bytes or 0 for c in candidates), default=0) or 1
    data: list[Figure] = [
        {
            "type": "scatter", "mode": "lines", "x": [x for x, _ in line], "y": [y for _, y in line],
            "line": {"color": "muted", "width": 2, "shape": "hv", "dash": "dot"}, "hoverinfo": "skip",
            "name": "Pareto front", "showlegend": len(line) > 1,
        }
    ]  # fmt: skip
    for kinds, name, colour in (
        (("pick",), "pick", "accent"), (("finalist",), "finalist", "second"), ((), "stopped early", "muted"),
    ):  # fmt: skip
        chosen = [i for i, c in enumerate(candidates) if (c.kind in kinds if kinds else c.kind not in COLOURS)]
        if chosen:
            data.append(_bubbles([candidates[i] for i in chosen], [points[i] for i in chosen], largest, name, colour))
    latencies = [x for x, _ in points if x > 0] + list(limits)
    log = bool(latencies) and max(latencies) > 12 * min(latencies)
    shapes = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"color": "warn", "width": 1.5, "dash": "dash"},
         "label": {"text": "limit", "textposition": "end", "font": {"color": "warn", "size": 11}}}
        for at in limits
    ]  # fmt: skip
    xaxis = {"title": {"text": "latency p90, ms (model only)"}, "type": "log" if log else "linear"}
    xaxis |= log_ticks(latencies) if log else {"rangemode": "tozero"}
    yaxis = {"title": {"text": f"{words_of(metric)}, %"}}
    return {"data": data, "layout": {"xaxis": xaxis, "yaxis": yaxis, "shapes": shapes, "height": 440}}


def learning(curves: Sequence[LearningCurve], kinds: dict[str, str], field: str) -> Figure:
    """Return one line a training; the pick stands out, and in the plot of losses its training loss is dashed."""
    rank = {"finalist": 1, "pick": 2}  # the pick is drawn last and lies on top
    ranked = sorted(curves, key=lambda curve: rank.get(kinds.get(curve.name, ""), 0))
    data = [_curve(curve, kinds.get(curve.name, ""), field) for curve in ranked]
    if field == "val_loss":
        picked = [curve for curve in curves if kinds.get(curve.name) == "pick"]
        data += [_dotted(_curve(curve, "pick", "train_loss")) for curve in picked]
    for trace in reversed(data):  # one entry a kind, not one a line
        trace["showlegend"] = trace["name"] not in {other["name"] for other in data if other.get("showlegend")}
    title = "accuracy on validation, %" if field == "val_accuracy" else "loss"
    axes = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": title}}}
    return {"data": data, "layout": {**axes, "height": 330, "showlegend": True}}


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    """Return the matrix; colour is the root of the share of its row (true), so that rare mistakes are seen.

    Counts are written in where there is room.
    """
    size = len(classes)
    shares = [[n / max(sum(row), 1) for n in row] for row in counts]
    step = math.ceil(size / TICKS)
    at = list(range(0, size, step))
    ticks = {"tickvals": at, "ticktext": [_short(classes[i]) for i in at], "showgrid": False, "zeroline": False}
    names = [escaped(name) for name in classes]
    hover = [[f"true {names[i]}<br>called {names[j]}<br>{n:,} ({shares[i][j]:.1%})" for j, n in enumerate(row)]
             for i, row in enumerate(counts)]  # fmt: skip
    trace: Figure = {
        "type": "heatmap", "z": [[round(math.sqrt(share), 4) for share in row] for row in shares], "zmin": 0, "zmax": 1,
        "hovertext": hover, "hoverinfo": "text", "colorscale": "scale", "showscale": False,
        "xgap": 1 if size <= 40 else 0, "ygap": 1 if size <= 40 else 0,
    }  # fmt: skip
    if size <= SHOWN_COUNTS:
        trace |= {"text": [[str(n) if n else "" for n in row] for row in counts], "texttemplate": "%{text}"}
    layout = {
        "xaxis": {**ticks, "title": {"text": "called", "standoff": 12}, "tickangle": -45 if size > 2 else 0},
        "yaxis": {**ticks, "title": {"text": "true", "standoff": 14}, "autorange": "reversed"},
    }
    return {"data": [trace], "layout": layout, "square": True, "classes": size}


def confused(
    classes: Sequence[str], counts: Sequence[Sequence[int]], top: int = 10
) -> list[tuple[str, str, int, float]]:
    """Return the most confused pairs: (true, called, images, share of the true class), most images first."""
    pairs = [
        (classes[i], classes[j], n, n / max(sum(row), 1))
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n and i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[3], pair[:2]))[:top]


def calibration(facts: Facts) -> Figure:
    """Return accuracy against confidence, with the diagonal of a model that may be believed."""
    assert facts.calibration is not None
    bins = sorted(facts.calibration.bins, key=lambda one: one.confidence)
    most = max(one.n for one in bins) or 1
    diagonal = {"type": "scatter", "mode": "lines", "x": [0, 100], "y": [0, 100], "hoverinfo": "skip",
                "line": {"color": "line", "width": 1.5, "dash": "dot"}, "name": "as confident as right"}  # fmt: skip
    measured = {
        "type": "scatter", "mode": "lines+markers", "name": "this model",
        "x": [100 * one.confidence for one in bins], "y": [100 * one.accuracy for one in bins],
        "marker": {"color": "accent", "size": [7 + 17 * math.sqrt(one.n / most) for one in bins], "line": {"width": 0}},
        "line": {"color": "accent", "width": 2},
        "hovertext": [f"{one.n:,} images<br>confidence {one.confidence:.1%}<br>right {one.accuracy:.1%}"
                      for one in bins],
        "hoverinfo": "text",
    }  # fmt: skip
    axes = {name: {"title": {"text": title}, "range": [0, 105]}
            for name, title in (("xaxis", "confidence, %"), ("yaxis", "right, %"))}  # fmt: skip
    return {"data": [diagonal, measured], "layout": {**axes, "height": 380}}


def words_of(metric: str) -> str:
    """Return a metric as words for an axis."""
    return escaped(metric.replace("_", " "))


def escaped(text: str) -> str:
    """Return text that Plotly shows as it is; it would read tags, and it decodes these entities."""
    return html.escape(text, quote=False)


def log_ticks(values: Sequence[float]) -> Figure:
    """Return ticks at 1, 2 and 5 of each decade, written out: Plotly would write 0.2 as a small "2"."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _bubbles(
    candidates: Sequence[CandidateFacts], points: Sequence[tuple[float, float]], largest: int, name: str, colour: str
) -> Figure:
    labelled = colour != "muted" and len(candidates) <= 4
    return {
        "type": "scatter",
        "mode": "markers+text" if labelled else "markers",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "text": [_short(c.name, 22) for c in candidates] if labelled else None,
        "textposition": "bottom center" if colour == "accent" else "top center",
        "hovertext": [_hover(c) for c in candidates],
        "hoverinfo": "text",
        "error_x": _errors([c.latency_p90_ms for c in candidates], 1.0),
        "error_y": _errors([c.accuracy for c in candidates], 100.0),
        "marker": {
            "color": colour,
            "size": [9 + 31 * math.sqrt((c.size_bytes or 0) / largest) for c in candidates],
            "opacity": 0.85,
            "line": {"color": "paper", "width": 1},
        },
    }


def _errors(found: Sequence[Any], scale: float) -> Figure:
    up = [0 if m.high is None else scale * max(m.high - m.value, 0) for m in found]
    down = [0 if m.low is None else scale * max(m.value - m.low, 0) for m in found]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": "line", "thickness": 1,
            "width": 0}  # fmt: skip


def _hover(candidate: CandidateFacts) -> str:
    on = f" on {escaped(candidate.accuracy_on)}" if candidate.accuracy_on else ""
    lines = [
        f"<b>{escaped(candidate.name)}</b>, {candidate.image_size} px",
        f"{words.percent(candidate.accuracy.value)} {words.percent_interval(candidate.accuracy)}{on}",
        f"p90 {words.ms(candidate.latency_p90_ms.value)}, p50 {words.ms(candidate.latency_p50_ms.value)}",
        f"{words.file_size(candidate.size_bytes)}, {words.counted(candidate.params)} params",
        escaped(candidate.status),
    ]
    return "<br>".join(lines)


def _curve(curve: LearningCurve, kind: str, field: str) -> Figure:
    scale = 100 if field == "val_accuracy" else 1
    rows = [row for row in curve.rows if getattr(row, field) is not None]
    values = [scale * getattr(row, field) for row in rows]
    colour = COLOURS.get(kind, "muted")
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(rows) < 3 else "lines",
        "name": LEGEND[colour],
        "legendgroup": LEGEND[colour],
        "x": [row.epoch for row in rows],
        "y": values,
        "line": {"color": colour, "width": {"accent": 3, "second": 2}.get(colour, 1.2)},
        "marker": {"color": colour},
        "hovertext": [
            f"<b>{escaped(curve.name)}</b><br>epoch {row.epoch:g}: {value:.4g}<br>lr {words.plain(row.lr)}, "
            f"{words.plain(row.train_seconds)} s"
            for row, value in zip(rows, values, strict=True)
        ],
        "hoverinfo": "text",
    }


def _dotted(trace: Figure) -> Figure:
    name = "pick, on training images"
    return {**trace, "line": {**trace["line"], "dash": "dot"}, "name": name, "legendgroup": name}


def _short(name: str, length: int = 16) -> str:
    """Return a name that fits beside an axis; the hover shows all of it."""
    clean = " ".join(name.split())
    return escaped(clean if len(clean) <= length else clean[: length - 1] + "…")


def _value(number: float | None) -> float:
    assert number is not None  # the caller has chosen those that have one
    return number
