"""Whether a study's arms stand in the same order on small subsets of a data set as on large ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from flyweight.measure.ranking import rank_agreement
from flyweight.measure.statistics import midranks
from flyweight.report.facts import Measured
from flyweight.report.rankings import Agreement, RankedArm, RankedSize, RankingFacts
from flyweight.studies.study import Scale, Study, Trial

ENOUGH_SEEDS = 3  # a claim about a way of training, not about one trained network
Results = Mapping[Trial, dict[str, Any]]


def rankings(study: Study, scale: Scale, results: Results) -> tuple[RankingFacts, ...]:
    """Return how the order of arms changes, for each data set of which several subsets are run.

    Args:
        results: Of the trials that have an accuracy.
    """
    origins: dict[tuple[Any, ...], list[str]] = {}
    for name, facts in study.datasets.items():
        wanted = scale.subsets.get(name, facts.subset)
        pixels = json.dumps(facts.data, sort_keys=True)
        origin = (facts.source or facts.of or name, facts.quarantine, pixels, wanted.classes if wanted else None)
        if any(trial.dataset == name for trial in results):
            origins.setdefault(origin, []).append(name)
    found = [_ranking(study, str(origin[0]), names, results) for origin, names in origins.items() if len(names) > 1]
    return tuple(one for one in found if one is not None)


def _ranking(study: Study, source: str, names: list[str], results: Results) -> RankingFacts | None:
    """Return the order at each size of the arms that are finished at all, with every seed; None for fewer than two."""
    images = {name: max(result["train_images"] for t, result in results.items() if t.dataset == name) for name in names}
    names = sorted(names, key=lambda name: images[name])
    seeds = sorted({trial.seed for trial in results})
    whole = [arm for arm in study.arms if all(Trial(seed, name, arm) in results for seed in seeds for name in names)]
    if len(whole) < 2 or len(set(images.values())) < 2:
        return None
    scores = {
        name: np.array([[results[Trial(seed, name, arm)]["accuracy"] for arm in whole] for seed in seeds])
        for name in names
    }
    ranks = {name: midranks(list(-scores[name].mean(0))) for name in names}
    return RankingFacts(
        source=source,
        sizes=tuple(RankedSize(dataset=name, train_images=images[name]) for name in names),
        arms=tuple(
            RankedArm(
                arm=arm,
                title=study.arms[arm].title,
                accuracies=tuple(float(scores[name][:, place].mean()) for name in names),
                ranks=tuple(float(ranks[name][place]) for name in names),
            )
            for place, arm in enumerate(whole)
        ),
        agreements=tuple(
            Agreement(small=small, large=large, tau=_tau(scores[small], scores[large]), seeds=len(seeds))
            for small, large in combinations(names, 2)
        ),
    )


def _tau(small: np.ndarray[Any, Any], large: np.ndarray[Any, Any]) -> Measured:
    found = rank_agreement(small, large)
    if len(small) < ENOUGH_SEEDS:
        return Measured(value=found.value)
    return Measured(value=found.value, low=found.low, high=found.high)
