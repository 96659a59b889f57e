"""How the order of a study's arms changes with the number of training images."""

from __future__ import annotations

import html
from typing import Any

from flyweight.report.facts import Count, Fact, Measured


class RankedSize(Fact):
    """One subset: its data set's name in the study, and training images in it."""

    dataset: str
    train_images: Count


class RankedArm(Fact):
    """One arm: mean accuracy and rank (1 is best; equal ones share the mean of theirs) at each size."""

    arm: str
    title: str
    accuracies: tuple[float, ...]
    ranks: tuple[float, ...]


class Agreement(Fact):
    """How far two sizes put the arms in one order: Kendall's tau-b, with a bootstrap interval over seeds (95 %)."""

    small: str
    large: str
    tau: Measured
    seeds: Count


class RankingFacts(Fact):
    """The arms that are finished at every size of one data set, the sizes from small to large."""

    source: str
    sizes: tuple[RankedSize, ...]
    arms: tuple[RankedArm, ...]
    agreements: tuple[Agreement, ...]

    @property
    def id(self) -> str:
        """Return the id of its plot."""
        return f"plot-ranking-{self.sizes[0].dataset}"


def by_size(facts: RankingFacts) -> dict[str, Any]:
    """Return the plot of accuracy against training images (log scale): one line an arm."""
    images = [size.train_images for size in facts.sizes]
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": html.escape(arm.title), "x": images,
            "y": [100 * value for value in arm.accuracies],
            "hovertemplate": f"{html.escape(arm.title)}: %{{y:.2f}} % of %{{x}} images<extra></extra>",
        }
        for arm in facts.arms
    ]  # fmt: skip
    axis = {
        "title": {"text": "training images"},
        "type": "log",
        "tickvals": images,
        "ticktext": [f"{n:,}" for n in images],
    }
    layout = {"xaxis": axis, "yaxis": {"title": {"text": "accuracy, %"}}, "height": 400, "showlegend": True}
    return {"data": traces, "layout": layout}
