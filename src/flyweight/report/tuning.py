"""The report of a search: what was tried, what it cost, what was found, and what to look at before believing it."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flyweight.files import write_json, write_text
from flyweight.report.build import ReportFiles, draw_page
from flyweight.report.cost import CostFacts, SecondsFacts
from flyweight.report.facts import Conditions, Count, Fact, Number
from flyweight.report.isolation import by_choice

Value = bool | int | float | str

SECTIONS = {
    "found": "What was found",
    "answers": "Choice by choice",
    "front": "Accuracy against cost",
    "history": "How it went",
    "values": "Value by value",
    "trials": "Every trial",
    "cost": "What it cost",
    "conditions": "Conditions",
}


class RungFacts(Fact):
    """One length of training in the search."""

    epochs: Count
    share: float
    image_size: Count | None = None
    images: Count


class RungResult(Fact):
    """What a trial gave on a rung: the metric on validation, image passes, seconds of training, when it was done.

    Attributes:
        own_seconds: What the seconds went in, validation too; None of a version that kept only their sum.
    """

    rung: Count
    score: float
    images: Count
    seconds: float
    own_seconds: SecondsFacts | None = None
    done: float  # seconds since 1970


class TrialFacts(Fact):
    """One trial.

    Attributes:
        values: By key of the recipe.
        status: finished (trained in full), stopped (left behind on a rung), over budget, failed, running.
        costs: By metric of a budget: ms, bytes or counts.
        disturbed: True where its latency was taken while other programs had the processor.
        cause: Why it failed.
        deaths: Workers that died at it; it went on from its last checkpoint each time.
        died: How they did, each way once, as far as it is known.
    """

    number: Count
    values: dict[str, Value]
    status: Literal["finished", "stopped", "over budget", "failed", "running"]
    results: tuple[RungResult, ...] = ()
    costs: dict[str, Number] = Field(default_factory=dict)
    disturbed: bool = False
    cause: str = ""
    deaths: Count = 0
    died: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """Of its longest rung."""
        return self.results[-1].score if self.results else None

    @property
    def images(self) -> int:
        """Image passes of all its trainings."""
        return sum(result.images for result in self.results)


class ChoiceFacts(Fact):
    """The best trial for one combination of the scientific values, each with its own nuisance values tuned."""

    choice: dict[str, Value]
    trials: Count
    best: Count | None = None
    score: Number = None


class ParamFacts(Fact):
    """A value that was searched: its range, and its share of the variance of the results (PED-ANOVA), where known.

    `when`: values of others that it takes to matter.
    """

    key: str
    name: str
    low: Number = None
    high: Number = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    when: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    importance: Number = None

    def active(self, values: Mapping[str, Value]) -> bool:
        """True where a trial with these values has it."""
        return self.key in values and all(values.get(key) in allowed for key, allowed in self.when.items())


class TuningFacts(Fact):
    """Everything that the page of a search says.

    Attributes:
        objectives: The metric of the validation images, then costs.
        best: Number of the trial that is best of those trained in full; before there is one, the best expected of those
            that came as far as the rung before; else None. `best_expected` is that score, reached or expected.
        front: With several objectives, numbers of those that no other beats in all of them, `best` among them.
        front_recipes: Their files, in the same order; () while the search goes on.
        edges: Values of the best trials that lie at the end of their range, in words.
        image_passes: Of all trainings, the partial ones included; `full_passes` is one full training.
        train_seconds: Of one core, validation left out; those of trainings that failed too.
        cost: Of every training, split, beside what was predicted; with energy where the machine tells.
        weighed: Trials whose network was weighed, or found to be weighed before, in `weighing_seconds` by the clock:
            exported, counted and, where asked for, timed.
        predicted_seconds: What was foreseen for all trials, validation included; null where nothing was.
        ended: Why the search stopped.
        recipe: File of the best recipe; "" while the search goes on.
    """

    kind: Literal["tuning"] = "tuning"
    title: str
    data: str
    objectives: tuple[str, ...]
    rungs: tuple[RungFacts, ...]
    params: tuple[ParamFacts, ...]
    trials: tuple[TrialFacts, ...]
    best: Count | None = None
    best_expected: Number = None
    front: tuple[Count, ...] = ()
    front_recipes: tuple[str, ...] = ()
    choices: tuple[ChoiceFacts, ...] = ()
    edges: tuple[str, ...] = ()
    image_passes: Count
    full_passes: Count
    train_seconds: float
    predicted_seconds: Number = None
    cost: CostFacts | None = None
    weighed: Count = 0
    weighing_seconds: float = 0.0
    ended: str = ""
    recipe: str = ""
    conditions: Conditions

    def trial(self, number: int) -> TrialFacts:
        """Return a trial by its number."""
        return next(trial for trial in self.trials if trial.number == number)

    def in_full(self, trial: TrialFacts) -> bool:
        """True where a trial was trained in full."""
        return bool(trial.results) and trial.results[-1].rung == len(self.rungs) - 1


def build_tuning_report(facts: TuningFacts, out: Path) -> ReportFiles:
    """Write `report.json` and the self-contained `report.html` into the folder `out`.

    Raises:
        MissingExtraError: Jinja2 or Plotly is not installed (report.json is written all the same).
        OutputError: The folder cannot be written.
    """
    files = ReportFiles(Path(out) / "report.json", Path(out) / "report.html")
    write_json(files.json, facts.model_dump(mode="json"))
    write_text(files.html, render_tuning(facts))
    return files


def render_tuning(facts: TuningFacts) -> str:
    """Return the page as one HTML text. Raises MissingExtraError."""
    shown = dict(SECTIONS)
    if not facts.choices:
        shown.pop("answers")
    if len(facts.objectives) < 2:
        shown.pop("front")
    if facts.cost is None:
        shown.pop("cost")
    scored = any(trial.results for trial in facts.trials)
    why = dict.fromkeys(SECTIONS, "")
    why |= {} if scored else dict.fromkeys(("history", "values", "front"), "Nothing is trained yet.")
    why["found"] = "" if facts.best is not None else "No trial has come as far as the rung before the full one yet."
    return draw_page("tuning.html.j2", _figures(facts), facts=facts, sections=shown, why_absent=why)


def _figures(facts: TuningFacts) -> dict[str, Any]:
    if not any(trial.results for trial in facts.trials):
        return {}
    drawn = {"plot-history": _history(facts)}
    drawn |= {f"plot-value-{number}": _slice(facts, param) for number, param in enumerate(facts.params)}
    if any(param.importance is not None for param in facts.params):
        drawn["plot-importance"] = _importance(facts)
    if facts.choices:
        drawn["plot-choices"] = by_choice(facts)
    if len(facts.objectives) > 1:
        drawn["plot-front"] = _front(facts)
    return drawn


def _history(facts: TuningFacts) -> dict[str, Any]:
    """Return the score of every training against the image passes spent by then, and the best in full as a line."""
    results = [(trial, result) for trial in facts.trials for result in trial.results]
    results.sort(key=lambda pair: pair[1].done)
    spent = list(itertools.accumulate(result.images for _, result in results))
    full = len(facts.rungs) - 1
    data = []
    for rung in range(len(facts.rungs)):
        chosen = [
            (at, trial, result) for at, (trial, result) in zip(spent, results, strict=True) if result.rung == rung
        ]
        data.append({
            "type": "scatter", "mode": "markers",
            "name": "full training" if rung == full else f"rung {rung + 1} ({facts.rungs[rung].images:,} images)",
            "marker": {"color": "accent" if rung == full else "muted", "size": 6 + 2 * rung},
            "x": [at for at, _, _ in chosen], "y": [100 * result.score for _, _, result in chosen],
            "hovertext": [f"trial {trial.number}" for _, trial, _ in chosen],
            "hovertemplate": "%{hovertext}: %{y:.2f} %<extra></extra>",
        })  # fmt: skip
    finals = [(at, result.score) for at, (_, result) in zip(spent, results, strict=True) if result.rung == full]
    best = list(itertools.accumulate((100 * score for _, score in finals), max))
    data.append({
        "type": "scatter", "mode": "lines", "name": "best in full", "x": [at for at, _ in finals], "y": best,
        "line": {"color": "accent", "shape": "hv", "width": 2}, "hoverinfo": "skip",
    })  # fmt: skip
    axes = {"xaxis": {"title": {"text": "image passes, partial trainings included"}}, "yaxis": _score_axis(facts)}
    return {"data": data, "layout": {**axes, "height": 360, "showlegend": True}}


def _slice(facts: TuningFacts, param: ParamFacts) -> dict[str, Any]:
    """Return score against one value, for the trials that have it."""
    full = len(facts.rungs) - 1
    data = []
    for final in (False, True):
        chosen = [
            trial for trial in facts.trials
            if trial.results and (trial.results[-1].rung == full) == final and param.active(trial.values)
        ]  # fmt: skip
        data.append({
            "type": "scatter", "mode": "markers", "name": "trained in full" if final else "stopped early",
            "marker": {"color": "accent" if final else "muted", "size": 9 if final else 6},
            "x": [_shown(trial.values[param.key]) for trial in chosen],
            "y": [100 * (trial.score or 0.0) for trial in chosen],
            "hovertext": [f"trial {trial.number}" for trial in chosen],
            "hovertemplate": "%{hovertext}: %{x}, %{y:.2f} %<extra></extra>",
        })  # fmt: skip
    kind = "category" if param.choices else "log" if param.log else "linear"
    axis = {"title": {"text": html.escape(param.name)}, "type": kind}
    return {"data": data, "layout": {"xaxis": axis, "yaxis": _score_axis(facts), "height": 280, "showlegend": False}}


def _importance(facts: TuningFacts) -> dict[str, Any]:
    known = sorted((param for param in facts.params if param.importance is not None), key=lambda p: p.importance or 0)
    trace = {
        "type": "bar", "orientation": "h", "marker": {"color": "second"},
        "x": [param.importance for param in known], "y": [html.escape(param.name) for param in known],
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }  # fmt: skip
    layout = {"xaxis": {"title": {"text": "share of the variance"}, "rangemode": "tozero"}}
    return {"data": [trace], "layout": {**layout, "height": 90 + 30 * len(known)}}


def _front(facts: TuningFacts) -> dict[str, Any]:
    cost = facts.objectives[1]
    full = len(facts.rungs) - 1
    finals = [trial for trial in facts.trials if trial.results and trial.results[-1].rung == full]
    data = []
    for on in (False, True):
        chosen = [trial for trial in finals if (trial.number in facts.front) == on]
        data.append({
            "type": "scatter", "mode": "markers", "name": "beaten by none" if on else "beaten",
            "marker": {"color": "accent" if on else "muted", "size": 11 if on else 7},
            "x": [trial.costs.get(cost) for trial in chosen], "y": [100 * (trial.score or 0.0) for trial in chosen],
            "hovertext": [f"trial {trial.number}" for trial in chosen],
            "hovertemplate": "%{hovertext}: %{x}, %{y:.2f} %<extra></extra>",
        })  # fmt: skip
    axes = {"xaxis": {"title": {"text": cost}, "type": "log"}, "yaxis": _score_axis(facts)}
    return {"data": data, "layout": {**axes, "height": 360, "showlegend": True}}


def _score_axis(facts: TuningFacts) -> dict[str, Any]:
    return {"title": {"text": f"{facts.objectives[0]} on validation, %"}}


def _shown(value: Value) -> Value:
    return html.escape(value) if isinstance(value, str) else str(value) if isinstance(value, bool) else value
