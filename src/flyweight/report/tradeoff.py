"""Accuracy against what it costs: one plot a cost, the networks that no other one beats joined by a line."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flyweight.measure.statistics import pareto

if TYPE_CHECKING:
    from flyweight.report.study import ArmFacts, DataSetFacts

# Title of the axis, and value of an arm: None where it was not measured.
Cost = tuple[str, "Callable[[ArmFacts], float | None]"]
COSTS: dict[str, Cost] = {
    "latency": ("latency p50, ms (batch 1)", lambda arm: arm.deployed.latency_p50_ms.value if arm.deployed else None),
    "size": ("file, MB", lambda arm: None if arm.size_bytes is None else arm.size_bytes / 1e6),
    "memory": ("peak memory of the process, MB", lambda arm: arm.deployed.memory_bytes / 1e6 if arm.deployed else None),
    "macs": ("multiply-accumulates, M", lambda arm: arm.macs / 1e6),
}


def costs_of(data: DataSetFacts) -> dict[str, Cost]:
    """Return what accuracy is drawn against, by name: `COSTS`, and the latency of each further backend."""
    return COSTS | {f"latency-{engine}": _latency_on(engine) for engine in data.other_backends}


def _latency_on(engine: str) -> Cost:
    def value_of(arm: ArmFacts) -> float | None:
        return next((cost.latency_p50_ms.value for cost in arm.elsewhere if cost.backend == engine), None)

    return f"latency p50 on {engine}, ms (batch 1)", value_of


def fronts(data: DataSetFacts) -> dict[str, tuple[str, ...]]:
    """Return, for each cost, the arms that no other ranked arm beats, cheapest first."""
    found = {}
    for name, (_, value_of) in costs_of(data).items():
        known = [(cost, arm) for arm in data.arms if arm.ranked and (cost := value_of(arm)) is not None]
        kept = pareto([(cost, arm.accuracy.value or 0.0) for cost, arm in known])
        best = sorted((cost, arm.arm) for (cost, arm), keep in zip(known, kept, strict=True) if keep)
        found[name] = tuple(arm for _, arm in best)
    return found


def trade_off(data: DataSetFacts, cost: str) -> dict[str, Any]:
    """Return the plot of accuracy against one cost (log scale)."""
    title, value_of = costs_of(data)[cost]
    front = fronts(data)[cost]
    points = {arm.arm: (value_of(arm), arm) for arm in data.arms if arm.ranked and value_of(arm) is not None}
    traces = []
    for label, colour, chosen in (
        ("beaten by another", "muted", [name for name in points if name not in front]),
        ("on the front", "accent", list(front)),
    ):
        rows = [points[name] for name in chosen]
        names = [html.escape(name.replace("_", " ")) for name in chosen]
        traces.append({
            "type": "scatter", "name": label, "mode": "lines+markers+text" if colour == "accent" else "markers+text",
            "x": [value for value, _ in rows], "y": [100 * (arm.accuracy.value or 0.0) for _, arm in rows],
            "text": names, "textposition": "top center", "textfont": {"size": 10},
            "marker": {"color": colour, "size": 10}, "line": {"color": colour, "width": 1.5, "shape": "hv"},
            "hovertemplate": "%{text}: %{y:.2f} % at %{x:.3g}<extra></extra>",
        })  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": title}, "type": "log"},
        "yaxis": {"title": {"text": "accuracy, %"}},
        "height": 360,
    }
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}
