"""From finished trials to facts: means over seeds, paired verdicts with Holm's correction, published numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from flyweight.measure.statistics import PairedRuns, holm, mcnemar_exact, mean_interval, over_data_sets, paired_runs
from flyweight.report.facts import Conditions, Measured
from flyweight.report.study import (
    ALL,
    Answer,
    ArmFacts,
    DataSetFacts,
    McNemar,
    PublishedFacts,
    StudyFacts,
    StudyVerdict,
)
from flyweight.runtime.environment import environment
from flyweight.studies.study import Question, Study, Trial
from flyweight.studies.trial import Place

SIGNIFICANT = 0.05
ENOUGH_SEEDS = 3  # a claim about a way of training, not about one trained network


def analyse(study: Study, scale: str, wanted: Sequence[Trial], place: Place) -> StudyFacts:
    """Return what the finished ones of the wanted trials say; the others are listed as missing."""
    found = {trial: result for trial in wanted if (result := place.result(trial)) is not None}
    names = list(dict.fromkeys(trial.dataset for trial in wanted))
    datasets = tuple(data for name in names if (data := _dataset(study, name, found)).arms)
    conditions = environment()
    return StudyFacts(
        study=study.name,
        title=study.title,
        paper=study.paper,
        about=study.about,
        scale=scale,
        part=study.part,
        datasets=datasets,
        verdicts=_verdicts(study, [data.name for data in datasets], found, place),
        differs=study.differs,
        missing=tuple(trial.name for trial in wanted if trial not in found),
        conditions=Conditions(
            machine=f"{conditions['cpu']} ({conditions['machine']})",
            os=conditions["os"],
            cores=conditions["cores"],
            memory_bytes=conditions["memory_bytes"],
            versions={**conditions["versions"], "python": conditions["python"]},
            seeds=tuple(sorted({trial.seed for trial in found})),
            command=conditions["command"],
            date=conditions["date"],
            details={"training": "float32, one thread a run", "trials": f"{len(found)} of {len(wanted)} finished"},
        ),
    )


def _dataset(study: Study, name: str, found: dict[Trial, dict[str, Any]]) -> DataSetFacts:
    mine = {trial: result for trial, result in found.items() if trial.dataset == name}
    arms = tuple(_arm(study, arm, mine) for arm in study.arms if any(trial.arm == arm for trial in mine))
    reference = next((arm for arm in arms if arm.arm == study.reference), None)
    published, said = None, study.datasets[name].published
    if reference is not None and said is not None:
        published = PublishedFacts(
            accuracy=said.accuracy,
            params=said.params,
            measured=reference.accuracy,
            measured_params=reference.params,
            reached=(reference.accuracy.value or 0.0) >= said.accuracy,
        )
    return DataSetFacts(
        name=name,
        title=study.datasets[name].title,
        test_images=max((result["n"] for result in mine.values()), default=0),
        seeds=tuple(sorted({trial.seed for trial in mine})),
        arms=arms,
        published=published,
    )


def _arm(study: Study, arm: str, mine: dict[Trial, dict[str, Any]]) -> ArmFacts:
    results = [result for trial, result in sorted(mine.items()) if trial.arm == arm]
    costs = {trial.seed: result["train_macs"] for trial, result in mine.items() if trial.arm == study.reference}
    ratios = [result["train_macs"] / costs[result["seed"]] for result in results if result["seed"] in costs]
    return ArmFacts(
        arm=arm,
        title=study.arms[arm].title,
        accuracy=_over_seeds([result["accuracy"] for result in results]),
        per_seed=tuple(result["accuracy"] for result in results),
        val_accuracy=_mean(results, "val_accuracy"),
        params=results[0]["params"],
        macs=results[0]["macs"],
        int8_bytes=results[0].get("int8_bytes"),
        train_macs=_mean(results, "train_macs"),
        cost_ratio=float(np.mean(ratios)) if ratios else None,
        train_seconds=_mean(results, "train_seconds"),
    )


def _verdicts(
    study: Study, datasets: Sequence[str], found: dict[Trial, dict[str, Any]], place: Place
) -> tuple[StudyVerdict, ...]:
    """Return each question's verdict over all data sets, then on each; Holm's correction within either family."""
    single = [
        compared
        for question, name in product(study.questions, datasets)
        if (compared := _compare(question, name, found, place)) is not None
    ]
    overall = [
        _overall(question, mine)
        for question in study.questions
        if len(mine := [compared for compared in single if compared.question == question]) == len(datasets) > 1
    ]
    return (*_judged(overall), *_judged(single))


@dataclass(frozen=True)
class _Compared:
    """Two arms on the same images of one data set, or of all."""

    question: Question
    dataset: str
    seeds: int
    paired: PairedRuns
    cost_ratio: float
    mcnemar: tuple[McNemar, ...] = ()


def _judged(family: Sequence[_Compared]) -> list[StudyVerdict]:
    adjusted = holm([compared.paired.p for compared in family])
    return [
        StudyVerdict(
            question=compared.question.ask,
            short=compared.question.short,
            dataset=compared.dataset,
            first=compared.question.first,
            second=compared.question.second,
            answer=_answer(compared.paired.difference.value, p, compared.seeds),
            difference=_measured(compared.paired),
            p=compared.paired.p,
            p_holm=p,
            df=compared.paired.df,
            detectable=compared.paired.detectable,
            cost_ratio=compared.cost_ratio,
            seeds=compared.seeds,
            mcnemar=compared.mcnemar,
        )
        for compared, p in zip(family, adjusted, strict=True)
    ]


def _compare(question: Question, name: str, found: dict[Trial, dict[str, Any]], place: Place) -> _Compared | None:
    """Compare two arms on one data set over the seeds that both have; None where there is none."""
    arms = (question.first, question.second)
    known = sorted({trial.seed for trial in found})
    seeds = [seed for seed in known if all(Trial(seed, name, arm) in found for arm in arms)]
    if not seeds:
        return None
    first, second = (np.stack([place.correct(Trial(seed, name, arm)) for seed in seeds]) for arm in arms)
    costs = [[found[Trial(seed, name, arm)]["train_macs"] for seed in seeds] for arm in arms]
    counts = []
    for seed, one, two in zip(seeds, first, second, strict=True):
        b, c = int((one & ~two).sum()), int((two & ~one).sum())
        counts.append(McNemar(seed=seed, only_first=b, only_second=c, p=mcnemar_exact(b, c)))
    ratio = float(np.mean(np.divide(costs[0], costs[1])))
    return _Compared(question, name, len(seeds), paired_runs(first, second), ratio, tuple(counts))


def _overall(question: Question, mine: Sequence[_Compared]) -> _Compared:
    ratio = float(np.mean([compared.cost_ratio for compared in mine]))
    paired = over_data_sets([compared.paired for compared in mine])
    return _Compared(question, ALL, min(compared.seeds for compared in mine), paired, ratio)


def _answer(difference: float, p: float, seeds: int) -> Answer:
    if seeds < ENOUGH_SEEDS:
        return "too few seeds"
    if p >= SIGNIFICANT:
        return "no difference"
    return "helps" if difference > 0 else "hurts"


def _measured(paired: PairedRuns) -> Measured:
    return Measured(value=paired.difference.value, low=paired.difference.low, high=paired.difference.high)


def _over_seeds(values: Sequence[float]) -> Measured:
    found = mean_interval(values)
    known = math.isfinite(found.low)
    return Measured(value=found.value, low=found.low if known else None, high=found.high if known else None)


def _mean(results: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([result[key] for result in results]))
