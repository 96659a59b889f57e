"""What a study says of the course of its trainings: convergence as numbers, and maps over rate and batch size."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Literal

from flyweight.report.facts import Count, Fact, Measured, Number

Outcome = Literal["converged", "slow", "at chance", "diverged"]


class ConvergenceFacts(Fact):
    """How one arm's trainings went on one data set (`measure.convergence`): means over the seeds that did not diverge.

    Attributes:
        seeds, diverged: How many were trained, and how many of these diverged.
        at_chance: How many ended with an accuracy that is not above chance (exact one-sided test at 1 %).
        diverged_epoch: The earliest in which that was seen.
        best: Highest validation accuracy of any epoch.
        tail_deviation: Standard deviation of validation accuracy over the last fifth of the epochs.
        largest_drop: Of validation accuracy from one epoch to the next, of any seed.
        gap: Accuracy on training images, not augmented, less that on validation.
        grad_norm_max: Largest norm of the gradient of any step of any seed, before clipping.
    """

    dataset: str
    arm: str
    title: str
    seeds: Count
    diverged: Count
    at_chance: Count = 0
    diverged_epoch: Count | None = None
    best: Number = None
    epochs_to_90: Number = None
    epochs_to_99: Number = None
    tail_deviation: Number = None
    largest_drop: Number = None
    gap: Number = None
    grad_norm_max: Number = None

    @property
    def share(self) -> float:
        """Return the share of seeds that diverged."""
        return self.diverged / self.seeds


class CellFacts(Fact):
    """One learning rate and batch size; `accuracy` is the mean over the seeds that did not diverge."""

    arm: str
    lr: float
    batch_size: Count
    outcome: Outcome
    accuracy: Measured = Measured()
    course: ConvergenceFacts


class MapFacts(Fact):
    """The cells of one optimizer on one data set that have every seed behind them."""

    dataset: str
    title: str
    optimizer: str
    cells: tuple[CellFacts, ...]

    @property
    def id(self) -> str:
        """Return the id of its plot."""
        return f"plot-map-{self.dataset}-{self.optimizer}"


def heat_map(facts: MapFacts) -> dict[str, Any]:
    """Return accuracy by learning rate (across) and batch size (up); cells that did not converge say so."""
    lrs = [f"{lr:g}" for lr in sorted({cell.lr for cell in facts.cells})]
    sizes = [str(size) for size in sorted({cell.batch_size for cell in facts.cells})]
    found = {(f"{cell.lr:g}", str(cell.batch_size)): cell for cell in facts.cells}
    grid = [[found.get((lr, size)) for lr in lrs] for size in sizes]
    colours = {
        "type": "heatmap", "x": lrs, "y": sizes, "colorscale": "scale", "showscale": False, "xgap": 2, "ygap": 2,
        "z": [[100 * cell.accuracy.value if cell and cell.accuracy.value is not None else None for cell in row]
              for row in grid],
        "text": [[_words(cell) if cell and cell.accuracy.value is not None else "" for cell in row] for row in grid],
        "texttemplate": "%{text}", "zmin": 0,
        "hovertemplate": "lr %{x}, batch %{y}: %{z:.2f} %<extra></extra>",
    }  # fmt: skip
    bare = [cell for cell in facts.cells if cell.accuracy.value is None]
    words = {
        "type": "scatter", "mode": "text", "x": [f"{cell.lr:g}" for cell in bare],
        "y": [str(cell.batch_size) for cell in bare], "text": [_words(cell) for cell in bare], "hoverinfo": "skip",
        "textfont": {"color": "warn"}, "showlegend": False,
    }  # fmt: skip
    axes = {
        "xaxis": {"title": {"text": "learning rate"}, "type": "category", "categoryarray": lrs, "showgrid": False},
        "yaxis": {"title": {"text": "batch size"}, "type": "category", "categoryarray": sizes, "showgrid": False},
    }
    return {"data": [colours, words], "layout": {**axes, "height": 150 + 60 * len(sizes)}}


def _words(cell: CellFacts) -> str:
    value = "" if cell.accuracy.value is None else f"{100 * cell.accuracy.value:.1f}"
    if cell.outcome == "converged":
        return value
    few = {"diverged": cell.course.diverged, "at chance": cell.course.at_chance}.get(cell.outcome, 0)
    partly = f" {few}/{cell.course.seeds}" if few else ""
    return "<br>".join(filter(None, (value, f"{cell.outcome}{partly}")))


def csv_map(maps: Sequence[MapFacts]) -> str:
    """Return one row a cell: shares in 0..1, epochs from 1; empty where nothing is known."""
    out = io.StringIO()
    rows = [_row(one, cell) for one in maps for cell in one.cells]
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def _row(facts: MapFacts, cell: CellFacts) -> dict[str, Any]:
    course = cell.course.model_dump(exclude={"dataset", "arm", "title"})
    return {
        "dataset": facts.dataset, "optimizer": facts.optimizer, "lr": cell.lr, "batch_size": cell.batch_size,
        "outcome": cell.outcome, "accuracy": cell.accuracy.value, "accuracy_low": cell.accuracy.low,
        "accuracy_high": cell.accuracy.high, **course,
    }  # fmt: skip
