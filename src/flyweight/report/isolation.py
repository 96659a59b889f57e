"""Isolation plots: what one choice does by itself, everything else left to vary or to be tuned as it was.

Source: Deep Learning Tuning Playbook, "Extracting insight from experiments".
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from flyweight.report.study import StudyFacts, StudyVerdict
    from flyweight.report.tuning import TuningFacts

_OFFSET = 0.5  # of a row's height, over which its seeds are spread


def by_question(facts: StudyFacts) -> dict[str, Any] | None:
    """Return a plot with one line for each question and seed, from the second side's accuracy to the first's.

    None where no question has seeds to show.
    """
    labels: list[str] = []
    lines: dict[str, tuple[list[float | None], list[float | None]]] = {
        name: ([], []) for name in ("base", "changed", "between")
    }
    for verdict in reversed(facts.verdicts):
        pairs = _pairs(facts, verdict)
        if not pairs:
            continue
        row = len(labels)
        labels.append(f"{html.escape(verdict.short)}, {html.escape(verdict.dataset)}")
        for place, (base, changed) in zip(_spread(len(pairs)), pairs, strict=True):
            height = row + place
            for name, value in (("base", base), ("changed", changed)):
                lines[name][0].append(100 * value)
                lines[name][1].append(height)
            lines["between"][0].extend([100 * base, 100 * changed, None])
            lines["between"][1].extend([height, height, None])
    if not labels:
        return None
    line = {"type": "scatter", "mode": "lines", "line": {"color": "line", "width": 2}, "hoverinfo": "skip"}
    dots = [
        {
            "type": "scatter", "mode": "markers", "name": title, "marker": {"color": colour, "size": 8},
            "x": lines[name][0], "y": lines[name][1], "hovertemplate": f"{title}: %{{x:.2f}} %<extra></extra>",
        }
        for name, title, colour in (("base", "without", "muted"), ("changed", "with", "accent"))
    ]  # fmt: skip
    between = {**line, "x": lines["between"][0], "y": lines["between"][1], "showlegend": False}
    axis = {"tickvals": list(range(len(labels))), "ticktext": labels, "range": [-0.6, len(labels) - 0.4]}
    layout = {"xaxis": {"title": {"text": "accuracy, %; one line a seed"}}, "yaxis": axis, "showlegend": True}
    return {"data": [between, *dots], "layout": {**layout, "height": 120 + 40 * len(labels)}}


def _pairs(facts: StudyFacts, verdict: StudyVerdict) -> list[tuple[float, float]]:
    """Return (second side, first side) of each seed, each the mean over the arms of the side and the data sets."""
    chosen = [data for data in facts.datasets if data.name == verdict.dataset] or list(facts.datasets)
    sides = []
    for side in (verdict.second, verdict.first):
        names = side.split(" + ")
        found = [arm.per_seed for data in chosen for arm in data.arms if arm.arm in names]
        if len(found) != len(names) * len(chosen) or len({len(values) for values in found}) != 1:
            return []
        sides.append([float(value) for value in np.mean(found, axis=0)])
    return list(zip(*sides, strict=True)) if len(sides[0]) == len(sides[1]) else []


def _spread(n: int) -> Sequence[float]:
    return [0.0] if n == 1 else [float(value) for value in np.linspace(_OFFSET / 2, -_OFFSET / 2, n)]


def by_choice(facts: TuningFacts) -> dict[str, Any]:
    """Return a plot of every trial's score by its scientific choice, the best that was trained in full marked."""
    names = [", ".join(f"{key} = {value}" for key, value in one.choice.items()) for one in facts.choices]
    full = len(facts.rungs) - 1
    data = []
    for final in (False, True):
        chosen = [
            (html.escape(name), trial)
            for name, one in zip(names, facts.choices, strict=True)
            for trial in facts.trials
            if trial.results and (trial.results[-1].rung == full) == final
            and all(trial.values.get(key) == value for key, value in one.choice.items())
        ]  # fmt: skip
        data.append({
            "type": "scatter", "mode": "markers", "name": "trained in full" if final else "stopped early",
            "marker": {"color": "second" if final else "muted", "size": 9 if final else 6},
            "x": [100 * (trial.score or 0.0) for _, trial in chosen], "y": [name for name, _ in chosen],
            "hovertext": [f"trial {trial.number}" for _, trial in chosen],
            "hovertemplate": "%{hovertext}: %{x:.2f} %<extra></extra>",
        })  # fmt: skip
    best = [(html.escape(name), one) for name, one in zip(names, facts.choices, strict=True) if one.score is not None]
    data.append({
        "type": "scatter", "mode": "markers", "name": "best, others tuned", "marker": {"color": "accent", "size": 13},
        "x": [100 * (one.score or 0.0) for _, one in best], "y": [name for name, _ in best],
        "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
    })  # fmt: skip
    axis = {"title": {"text": f"{html.escape(facts.objectives[0])}, %"}}
    return {"data": data, "layout": {"xaxis": axis, "height": 120 + 40 * len(names), "showlegend": True}}
