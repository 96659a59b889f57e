"""From results to the course of trainings: convergence over seeds, and each cell of a map as one of four outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flyweight.measure.statistics import binomial_tail, mean_interval, wilson
from flyweight.report.facts import Measured
from flyweight.report.stability import CellFacts, ConvergenceFacts, MapFacts, Outcome
from flyweight.studies.study import Scale, Study, Trial, recipe_of

SLOW = 0.9  # of the way from chance to the best cell: with less, a cell is slow
NOT_ABOVE_CHANCE = 0.01  # one-sided p from which an accuracy is not above chance
Results = Mapping[Trial, dict[str, Any]]


def courses(study: Study, results: Results) -> tuple[ConvergenceFacts, ...]:
    """Return how the trainings of each arm went on each data set, where the version that ran them wrote it down.

    Args:
        results: Of finished trials, those that diverged among them.
    """
    found = []
    for name, arm in dict.fromkeys((trial.dataset, trial.arm) for trial in sorted(results)):
        mine = [result for trial, result in sorted(results.items()) if (trial.dataset, trial.arm) == (name, arm)]
        if any("convergence" in result or "diverged" in result for result in mine):
            found.append(_course(name, arm, study.arms[arm].title, mine))
    order = {arm: place for place, arm in enumerate(study.arms)}
    return tuple(sorted(found, key=lambda one: (one.dataset, order[one.arm])))


def at_chance(result: Mapping[str, Any]) -> bool:
    """True where a run has learned nothing: its accuracy is not above chance by an exact one-sided test at 1 %.

    Chance is one in so many classes, or the share of the most frequent class of the images where that is more: who
    always says that one knows nothing either. A run that diverged has no accuracy; that is another outcome.
    """
    if "accuracy" not in result or "classes" not in result:
        return False
    chance = max(1 / result["classes"], result.get("majority", 0.0))
    right = round(result["accuracy"] * result["n"])
    return chance >= 1 or binomial_tail(right, result["n"], chance) > NOT_ABOVE_CHANCE


def _course(dataset: str, arm: str, title: str, mine: Sequence[dict[str, Any]]) -> ConvergenceFacts:
    lost = [result["diverged"]["epoch"] for result in mine if "diverged" in result]
    went = [result["convergence"] for result in mine if "convergence" in result]

    def of_all(key: str, how: Any = np.mean) -> float | None:
        known = [one[key] for one in went if one[key] is not None]
        return float(how(known)) if known else None

    means = ("best", "epochs_to_90", "epochs_to_99", "tail_deviation", "gap")
    return ConvergenceFacts(
        dataset=dataset,
        arm=arm,
        title=title,
        seeds=len(mine),
        diverged=len(lost),
        at_chance=sum(map(at_chance, mine)),
        diverged_epoch=min(lost, default=None),
        largest_drop=of_all("largest_drop", max),
        grad_norm_max=of_all("grad_norm_max", max),
        **{key: of_all(key) for key in means},
    )


def maps(study: Study, scale: Scale, wanted: Sequence[Trial], results: Results) -> tuple[MapFacts, ...]:
    """Return a map for each data set and optimizer, of the cells whose seeds are all finished."""
    known = {(one.dataset, one.arm): one for one in courses(study, results)}
    found: dict[tuple[str, str], list[CellFacts]] = {}
    for name in dict.fromkeys(trial.dataset for trial in wanted):
        accuracies = {
            arm: [result["accuracy"] for trial, result in sorted(results.items())
                  if (trial.dataset, trial.arm) == (name, arm) and "accuracy" in result]
            for arm in study.arms
        }  # fmt: skip
        best = max((float(np.mean(values)) for values in accuracies.values() if values), default=0.0)
        chance = max((1 / result["classes"] for trial, result in results.items() if trial.dataset == name), default=0.0)
        for arm in study.arms:
            course = known.get((name, arm))
            if course is None or course.seeds < sum((t.dataset, t.arm) == (name, arm) for t in wanted):
                continue
            recipe = recipe_of(study, scale, Trial(0, name, arm))
            cell = CellFacts(
                arm=arm,
                lr=recipe.optim.lr,
                batch_size=recipe.batch_size,
                outcome=outcome(course.diverged, accuracies[arm], best, chance, course.at_chance),
                accuracy=over_seeds(accuracies[arm]),
                course=course,
            )
            found.setdefault((name, recipe.optim.name), []).append(cell)
    return tuple(
        MapFacts(dataset=name, title=study.datasets[name].title, optimizer=optimizer, cells=tuple(cells))
        for (name, optimizer), cells in found.items()
    )


def outcome(diverged: int, accuracies: Sequence[float], best: float, chance: float, none: int = 0) -> Outcome:
    """Return what became of a cell: diverged or at chance where any seed is, slow where it comes less far than `SLOW`.

    Args:
        accuracies: Of the seeds that did not diverge.
        best: The highest mean of any cell of the data set; it must come `SLOW` of the way there from chance.
        chance: Accuracy of one who knows nothing.
        none: Seeds that have learned nothing.
    """
    if diverged or none:
        return "diverged" if diverged else "at chance"
    return "slow" if float(np.mean(accuracies)) - chance < SLOW * (best - chance) else "converged"


def over_seeds(values: Sequence[float], images: int | None = None) -> Measured:
    """Return the mean of shares over seeds with Student's interval; nothing for none.

    Args:
        images: That each share is of; one seed then has Wilson's interval over them, else it has none.
    """
    if not values:
        return Measured()
    found = mean_interval(values)
    if len(values) < 2:
        low, high = (None, None) if images is None else wilson(round(found.value * images), images)
        return Measured(value=found.value, low=low, high=high)
    return Measured(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))
