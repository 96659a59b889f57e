"""Export the finalists, measure them side by side, and pick the best within the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset
from flyweight.data.split import Split
from flyweight.errors import BudgetError
from flyweight.export import export
from flyweight.export.parity import file_logits
from flyweight.export.trained import validation_images
from flyweight.fit.contest import Outcome
from flyweight.measure.accuracy import METRICS, Accuracy, score
from flyweight.measure.budget import MEASURED, Budget, Check
from flyweight.measure.device import HOST
from flyweight.measure.latency import LatencyResult
from flyweight.measure.speed import time_models
from flyweight.measure.statistics import mcnemar_exact, paired_bootstrap
from flyweight.measure.weigh import FileCost, weigh_files
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.memory import peak_memory

ALPHA = 0.05
MARGIN = 0.01  # of accuracy: what a faster finalist may cost at most, with 95 % confidence, to ship instead of the best


@dataclass(frozen=True)
class Finalist:
    """A finalist as it would ship, with everything measured on its own file.

    Attributes:
        validation: Of the shipped file on the validation images.
        right: (N,) bool, which validation images it gets right; for paired tests.
        values: By metric of a budget, as `fit.weigh.Weighed.values`.
        latency: How it was taken, as `LatencyResult.as_dict`; {} where the budget's device did not time it.
    """

    outcome: Outcome
    bundle: Bundle
    validation: Accuracy
    right: np.ndarray[Any, Any]
    values: dict[str, float | None]
    latency: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def name(self) -> str:
        """Return the candidate's name."""
        return self.outcome.weighed.candidate.name

    @property
    def within(self) -> bool:
        """True where no limit is broken."""
        return all(check.status != "violated" for check in self.checks)


@dataclass(frozen=True)
class Way:
    """One way to run the pick: a file, the runtime that runs it, and with how many threads.

    Attributes:
        variant: Its name in the bundle.
        change: Of the accuracy on validation against the pick's own file, with its paired interval.
        ships: Whether it may: as accurate, and not slower.
        because: Why, or why not, in words. What could not be written has no time and no threads.
    """

    variant: str
    backend: str
    precision: str
    threads: int | None
    size_bytes: int | None
    p50_ms: float | None
    p50_low_ms: float | None
    p50_high_ms: float | None
    change: tuple[float, float | None, float | None] | None
    ships: bool
    because: str


@dataclass(frozen=True)
class Pick:
    """The finalist that ships, and why.

    Attributes:
        finalists: All of them, best first by the metric.
        why: Sentences for people.
        p_values: Exact McNemar p of the best against each other finalist, by name.
        ways: To run the winner, the fastest first.
        threads: That it runs fastest with; None where that was not measured.
    """

    winner: Finalist
    finalists: tuple[Finalist, ...]
    why: tuple[str, ...]
    p_values: dict[str, float]
    ways: tuple[Way, ...] = ()
    threads: int | None = None


def weigh_finalists(
    outcomes: Sequence[Outcome], dataset: Dataset, parts: Split, budget: Budget, folder: Path, *, threads: int
) -> list[Finalist]:
    """Export every finalist to `folder` and measure the files: accuracy on validation, latency interleaved, memory.

    For a budget of another device the times are those that it took of the finalists' untrained twins.

    Raises:
        ExportError: A file disagrees with its network.
    """
    shipped = [(o, o.trained, o.weighed.candidate.name) for o in outcomes if o.status == "finalist" and o.trained]
    bundles = [export(trained, dataset, folder / name) for _, trained, name in shipped]
    costs = file_costs([outcome for outcome, _, _ in shipped], bundles, budget, threads)
    finalists = []
    for (outcome, trained, _), bundle, cost in zip(shipped, bundles, costs, strict=True):
        images, labels = validation_images(trained, dataset)
        finalists.append(measured(outcome, bundle, cost, images, labels, budget))
    return finalists


def measured(
    outcome: Outcome,
    bundle: Bundle,
    cost: FileCost,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    budget: Budget,
) -> Finalist:
    """Return what a bundle's default file is as a finalist.

    Args:
        images: Of the validation part, (N, C, S, S).
        labels: Theirs, (N,).
    """
    logits = file_logits(bundle.variant().file, images)
    return Finalist(
        outcome=outcome,
        bundle=bundle,
        validation=score(logits, labels, bundle.classes, bundle.temperature),
        right=logits.argmax(axis=1) == labels,
        values=cost.values,
        latency=cost.latency,
        checks=tuple(budget.check(cost.values, measured_on=budget.device)),
    )


def choose(finalists: Sequence[Finalist], budget: Budget) -> Pick:
    """Return the best finalist within the budget, or a faster one that is shown not to be worse by a point or more.

    That is a non-inferiority test on the paired validation answers: "no difference found" is not enough, since with few
    images none ever is.

    Raises:
        BudgetError: As trained and exported, none is within the budget (their untrained twins were).
    """
    allowed = [finalist for finalist in finalists if finalist.within]
    if not allowed:
        broken = "; ".join(
            f"{f.name}: {check.metric} {check.shown_value}"
            for f in finalists
            for check in f.checks
            if check.status == "violated"
        )
        raise BudgetError(
            f"measured again after training, no finalist is within {budget.text!r}: {broken or 'none finished'}",
            do="run again on a quiet machine, or leave a little more room in the limit",
        )
    metric = METRICS[budget.maximize]
    order = sorted(allowed, key=lambda finalist: -metric(finalist.validation))
    best = order[0]
    p_values = {other.name: _p_value(best, other) for other in order[1:]}
    equals = [best, *(other for other in order[1:] if budget.maximize == "accuracy" and _as_good(other, best))]
    winner = min(equals, key=_slowness)
    return Pick(winner, tuple(order), tuple(_why(winner, best, order, p_values, budget)), p_values)


def _slowness(finalist: Finalist) -> float:
    # What was not timed is not taken for fast.
    return finalist.values["latency_p90"] or finalist.values["latency_p50"] or math.inf


def _as_good(other: Finalist, best: Finalist) -> bool:
    return paired_bootstrap(other.right, best.right).low > -MARGIN


def _p_value(one: Finalist, other: Finalist) -> float:
    return mcnemar_exact(int((one.right & ~other.right).sum()), int((~one.right & other.right).sum()))


def _why(
    winner: Finalist, best: Finalist, order: Sequence[Finalist], p_values: dict[str, float], budget: Budget
) -> list[str]:
    metric = METRICS[budget.maximize]
    said = [
        f"{winner.name} reaches {100 * metric(winner.validation):.2f} % {budget.maximize.replace('_', ' ')} "
        f"on {winner.validation.n} validation images and meets every limit of {budget.text!r}."
    ]
    if winner is not best:
        said.append(
            f"{best.name} scored {100 * metric(best.validation):.2f} %, but at most a point is lost by shipping the "
            f"faster one (paired 95 % interval; exact McNemar p = {p_values[winner.name]:.2f})."
        )
    for other in order:
        if other not in (winner, best):
            p = p_values[other.name]
            word = "beaten" if p <= ALPHA else "no different"
            said.append(f"{other.name}: {100 * metric(other.validation):.2f} %, {word} (p = {p:.3g}).")
        elif other is not winner and winner is best:
            said.append(f"{other.name}: {100 * metric(other.validation):.2f} %.")
    return said


def file_costs(outcomes: Sequence[Outcome], bundles: Sequence[Bundle], budget: Budget, threads: int) -> list[FileCost]:
    """Return what the files cost: measured here, or for another device what it measured of the untrained twins."""
    files = [bundle.variant().file for bundle in bundles]
    if budget.device != HOST:
        counted = weigh_files(files, threads=threads, timed=False)
        return [_of_twin(outcome, cost) for outcome, cost in zip(outcomes, counted, strict=True)]
    timings = time_models(files, threads=threads)
    return [
        FileCost(_values(file, timing, threads), timing.as_dict()) for file, timing in zip(files, timings, strict=True)
    ]


def _of_twin(outcome: Outcome, cost: FileCost) -> FileCost:
    """Return the cost with the times of the candidate's untrained graph, where the trained one is the same."""
    twin = outcome.weighed
    same = all(twin.values[metric] == cost.values[metric] for metric in ("params", "macs"))
    times = {metric: twin.values.get(metric) if same else None for metric in sorted(MEASURED)}
    return FileCost({**cost.values, **times}, twin.latency if same else {})


def _values(file: Path, timing: LatencyResult, threads: int) -> dict[str, float | None]:
    cost, memory = count(file), peak_memory(file, threads=threads)
    return {
        "latency_p50": timing.p50_ms,
        "latency_p90": timing.p90_ms,
        "latency_p99": timing.p99_ms,
        "size": float(file.stat().st_size),
        "params": float(cost.params),
        "macs": float(cost.macs),
        "peak_activation": float(cost.peak_activation_bytes),
        "memory": float(memory.peak_bytes),
        "memory_increment": float(memory.increment_bytes),
    }
