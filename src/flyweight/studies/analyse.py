"""From finished trials to facts: means over seeds, paired verdicts with Holm's correction, published numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from flyweight.measure.statistics import (
    PairedRuns,
    could_find,
    holm,
    letters,
    mcnemar_exact,
    over_data_sets,
    paired_runs,
)
from flyweight.report.facts import Conditions, Measured
from flyweight.report.study import (
    ALL,
    Answer,
    ArmFacts,
    DataSetFacts,
    DeployedFacts,
    McNemar,
    PairFacts,
    PublishedArmFacts,
    PublishedFacts,
    RunningFacts,
    StudyFacts,
    StudyVerdict,
)
from flyweight.runtime.backends import engines_of
from flyweight.runtime.environment import environment
from flyweight.studies.deployed import read_deployed
from flyweight.studies.devices import device_rankings
from flyweight.studies.made_by import made_by
from flyweight.studies.mapped import at_chance, courses, maps, over_seeds
from flyweight.studies.ranking import ENOUGH_SEEDS, rankings
from flyweight.studies.spent import costs, spent
from flyweight.studies.study import Question, Scale, Study, Trial, title_of
from flyweight.studies.trial import Place

SIGNIFICANT = 0.05
CHANCES = 5  # times chance: an arm of a comparison below this is not trained enough to be ranked
HALFWAY = 0.5  # from chance to perfect: as much is asked where five times chance is more than that


def analyse(
    study: Study, scale: str, wanted: Sequence[Trial], place: Place, running: RunningFacts | None = None
) -> StudyFacts:
    """Return what the finished ones of the wanted trials say; the others are listed as missing, or as diverged.

    Args:
        running: Where the study stands, while it runs.
    """
    results = {trial: result for trial in wanted if (result := place.result(trial)) is not None}
    found = {trial: result for trial, result in results.items() if "diverged" not in result}
    lost = {trial: result["diverged"]["why"] for trial, result in results.items() if trial not in found}
    blocked = _blocked(study, wanted, lost)
    names = list(dict.fromkeys(trial.dataset for trial in wanted))
    on_machines = read_deployed(place) if study.compare else None
    deployed = (on_machines or {}).get("costs", {})
    size = study.scales[scale]
    datasets = tuple(data for name in names if (data := _dataset(study, size, name, found, lost, deployed)).arms)
    pairs: tuple[PairFacts, ...] = ()
    if study.compare:
        pairs = tuple(pair for data in datasets for pair in _pairs(data, found, place))
        datasets = tuple(_lettered(data, pairs) for data in datasets)
    conditions = environment()
    cost = costs(study, wanted, results, place)
    timed = (on_machines or {}).get("conditions")
    return StudyFacts(
        study=study.name,
        title=study.title,
        paper=study.paper,
        about=study.about,
        scale=scale,
        part=study.part,
        datasets=datasets,
        verdicts=_verdicts(study, [data.name for data in datasets], found, place),
        pairs=pairs,
        effort=_effort(study, found),
        running=running,
        cost=cost,
        published_on=study.published_on,
        differs=study.differs,
        convergence=courses(study, results),
        maps=maps(study, study.scales[scale], wanted, results) if study.stability else (),
        rankings=rankings(study, study.scales[scale], found),
        devices=device_rankings(on_machines, {data.name: [arm.arm for arm in data.arms] for data in datasets}),
        diverged={trial.name: why for trial, why in {**lost, **blocked}.items()},
        missing=tuple(trial.name for trial in wanted if trial not in results and trial not in blocked),
        conditions=Conditions(
            machine=f"{conditions['cpu']} ({conditions['machine']})",
            os=conditions["os"],
            cores=conditions["cores"],
            memory_bytes=conditions["memory_bytes"],
            versions={**conditions["versions"], "python": conditions["python"]},
            seeds=tuple(sorted({trial.seed for trial in found})),
            command=conditions["command"],
            date=conditions["date"],
            details={
                "training": "float32, one thread a run",
                "trials": f"{len(results)} of {len(wanted)} finished",
                "code": made_by(place),
                **spent(cost),
                **({} if timed is None else {"files timed": _timed_on(timed)}),
            },
        ),
    )


def _blocked(study: Study, wanted: Sequence[Trial], lost: Mapping[Trial, str]) -> dict[Trial, str]:
    """Return the trials that will never run, since one that they need has diverged, each with that in words."""
    found: dict[Trial, str] = {}
    for trial in wanted:  # what a trial needs stands before it
        for need in study.arms[trial.arm].needs:
            before = Trial(trial.seed, trial.dataset, need)
            if before in lost or before in found:
                found[trial] = f"it needs {before.name}, which is lost"
    return found


def _dataset(
    study: Study,
    size: Scale,
    name: str,
    found: dict[Trial, dict[str, Any]],
    lost: Mapping[Trial, str],
    deployed: dict[str, list[dict[str, Any]]],
) -> DataSetFacts:
    mine = {trial: result for trial, result in found.items() if trial.dataset == name}
    arms = tuple(
        _arm(study, arm, mine, sum((t.dataset, t.arm) == (name, arm) for t in lost), deployed.get(f"{name}/{arm}", []))
        for arm in study.arms
        if any(trial.arm == arm for trial in mine)
    )
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
        title=title_of(study, size, name),
        test_images=max((result["n"] for result in mine.values()), default=0),
        train_images=max(
            (result["train_images"] for result in mine.values() if "train_images" in result), default=None
        ),
        classes=next((tuple(result["class_names"]) for result in mine.values() if "class_names" in result), ()),
        seeds=tuple(sorted({trial.seed for trial in mine})),
        arms=arms,
        published=published,
    )


def _arm(
    study: Study, arm: str, mine: dict[Trial, dict[str, Any]], diverged: int, deployed: list[dict[str, Any]]
) -> ArmFacts:
    results = [result for trial, result in sorted(mine.items()) if trial.arm == arm]
    costs = {trial.seed: result["train_macs"] for trial, result in mine.items() if trial.arm == study.reference}
    said = study.arms[arm].published_on(results[0]["dataset"])
    ratios = [result["train_macs"] / costs[result["seed"]] for result in results if result["seed"] in costs]
    return ArmFacts(
        arm=arm,
        title=study.arms[arm].title,
        group=study.arms[arm].group,
        published=None if said is None else PublishedArmFacts(accuracy=said.accuracy, where=said.where),
        **(_compared_facts(study, results, diverged, deployed) if study.compare else {}),
        diverged=diverged,
        at_chance=sum(map(at_chance, results)),
        accuracy=over_seeds([result["accuracy"] for result in results], results[0]["n"]),
        per_seed=tuple(result["accuracy"] for result in results),
        val_accuracy=_mean(results, "val_accuracy"),
        params=results[0]["params"],
        macs=results[0]["macs"],
        int8_bytes=results[0].get("int8_bytes"),
        train_macs=_mean(results, "train_macs"),
        cost_ratio=float(np.mean(ratios)) if ratios else None,
        train_seconds=_mean(results, "train_seconds"),
    )


def _compared_facts(
    study: Study, results: Sequence[dict[str, Any]], diverged: int, deployed: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what only a comparison of networks says of an arm."""
    first = results[0]
    pretrained = first["pretrained"] or ""
    trained = _trained_enough(results)
    return {
        "enough": trained,
        "ranked": trained and not diverged and (not study.ranked or first["arm"] in study.ranked),
        "top5": _mean(results, "top5") if first["top5"] is not None else None,
        "balanced": _mean(results, "balanced"),
        "ece": _mean(results, "ece"),
        "recalls": _recalls(results),
        "macs_by_torch": first["macs_by_torch"],
        "size_bytes": first["size_bytes"],
        "image_passes": _mean(results, "image_passes"),
        "tuning": _tuning(results),
        "pretrained": pretrained,
        "seen": _saw(study, first),
        "deployed": _deployed(deployed[0]) if deployed else None,
        "elsewhere": tuple(_deployed(cost) for cost in deployed[1:]),
    }


def enough(classes: int) -> float:
    """Return the accuracy from which an arm is trained enough to be ranked: five times chance, or half the way up."""
    chance = 1 / classes
    return min(CHANCES * chance, chance + HALFWAY * (1 - chance))


def _saw(study: Study, result: dict[str, Any]) -> bool:
    """True where a trial began with weights that were trained on its own data set, or on what that was cut from."""
    pretrained = result.get("pretrained") or ""
    return any(part in pretrained for part in study.datasets[result["dataset"]].seen_by)


def _tuning(results: Sequence[dict[str, Any]]) -> str:
    """Return an arm's own search in words: how many tries, and which was best for each seed."""
    tried = results[0]["tuning"]
    if not tried:
        return ""
    chosen = []
    for result in results:
        scored = [one for one in result["tuning"] if one["val_accuracy"] is not None]
        change = max(scored, key=lambda one: one["val_accuracy"])["change"] if scored else {}
        chosen.append(json.dumps(change) if change else "as it stands")
    passes = max(one["image_passes"] for one in tried)  # one that diverged had fewer
    return f"{len(tried)} tries × {passes:,} image passes; best: {', '.join(dict.fromkeys(chosen))}"


def _effort(study: Study, found: dict[Trial, dict[str, Any]]) -> str:
    """Return the effort of every arm: how many settings it tried, with how many image passes, and those of training.

    "" where nothing was tuned and no networks are compared.
    """
    if not any(result.get("tuning") for result in found.values()):
        return "No arm was tuned: each trained as its recipe stands." if study.compare else ""
    sentences = []
    for name in dict.fromkeys(trial.dataset for trial in sorted(found)):
        mine = {trial: result for trial, result in sorted(found.items()) if trial.dataset == name}
        by_seed: dict[int, set[tuple[int, int]]] = {}  # folds differ by a few images
        for trial, result in mine.items():
            by_seed.setdefault(trial.seed, set()).add(_tries(result))
        same = "equal" if all(len(efforts) == 1 for efforts in by_seed.values()) else "UNEQUAL"
        each = "; ".join(_effort_of(arm, result) for arm, result in {t.arm: r for t, r in mine.items()}.items())
        sentences.append(
            f"Tuning effort on {name}, settings tried × image passes + those of the training, {same}: {each}."
        )
    tried = [one for result in found.values() for one in result.get("tuning") or ()]
    if any("train_macs" not in one for one in tried):
        sentences.append("The training cost leaves out tries of runs by an older version, which did not count them.")
    return " ".join(sentences)


def _tries(result: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many settings an arm tried, and the image passes of each; (1, 0) for one that had no choice."""
    tuning = result.get("tuning") or ()
    return (len(tuning), max(one["image_passes"] for one in tuning)) if tuning else (1, 0)


def _effort_of(arm: str, result: Mapping[str, Any]) -> str:
    count, passes = _tries(result)
    whole = result.get("image_passes")
    own = "" if whole is None else f" + {whole - sum(one['image_passes'] for one in result.get('tuning') or ()):,}"
    return f"{arm} {count} × {passes:,}{own}"


def _deployed(found: dict[str, Any]) -> DeployedFacts:
    latency = found["latency"]

    def quantile(name: str) -> Measured:
        return Measured(value=latency[name]["ms"], low=latency[name]["low_ms"], high=latency[name]["high_ms"])

    return DeployedFacts(
        backend=found["backend"],
        threads=found["threads"],
        latency_p50_ms=quantile("p50"),
        latency_p90_ms=quantile("p90"),
        disturbed=bool(latency["disturbed"]),
        memory_bytes=found["memory_bytes"],
        memory_increment_bytes=found["memory_increment_bytes"],
    )


def _timed_on(conditions: dict[str, Any]) -> str:
    engines = [f"{name} {conditions['versions'][name]}" for name in engines_of() if name in conditions["versions"]]
    return f"{conditions['cpu']}, {', '.join(engines)}, {conditions['date'][:16]}"


def _ranked(data: DataSetFacts) -> list[ArmFacts]:
    """Return the arms that are compared with each other, the best first."""
    return sorted((arm for arm in data.arms if arm.ranked), key=lambda arm: -(arm.accuracy.value or 0.0))


def _pairs(data: DataSetFacts, found: dict[Trial, dict[str, Any]], place: Place) -> list[PairFacts]:
    """Return every pair of ranked arms on one data set, the better first; Holm's correction over all of them.

    Without those that have too few seeds in common: that would be said of these trained networks, not of others of
    their kind.
    """
    compared = [
        one
        for first, second in combinations([arm.arm for arm in _ranked(data)], 2)
        if (one := _compare(Question(ask="", short="", first=(first,), second=(second,)), data.name, found, place))
    ]
    compared = [one for one in compared if one.seeds >= ENOUGH_SEEDS and not one.same]
    adjusted = holm([one.paired.p for one in compared])
    return [
        PairFacts(
            dataset=data.name,
            first=one.question.first[0],
            second=one.question.second[0],
            difference=_measured(one.paired),
            p=one.paired.p,
            p_holm=p,
        )
        for one, p in zip(compared, adjusted, strict=True)
    ]


def _lettered(data: DataSetFacts, pairs: Sequence[PairFacts]) -> DataSetFacts:
    mine = [pair for pair in pairs if pair.dataset == data.name]
    if not mine:
        return data
    differ = {frozenset((pair.first, pair.second)) for pair in mine if pair.p_holm < SIGNIFICANT}
    paired = {name for pair in mine for name in (pair.first, pair.second)}
    names = [arm.arm for arm in _ranked(data) if arm.arm in paired]
    shown = letters(names, lambda first, second: frozenset((first, second)) in differ)
    arms = tuple(arm.model_copy(update={"letters": shown.get(arm.arm, "")}) for arm in data.arms)
    return data.model_copy(update={"arms": arms})


def _verdicts(
    study: Study, datasets: Sequence[str], found: dict[Trial, dict[str, Any]], place: Place
) -> tuple[StudyVerdict, ...]:
    """Return each question's verdict over all data sets, then on each; Holm's correction within either family."""
    single = [
        _flagged(study, compared, found)
        for question, name in product(study.questions, datasets)
        if (compared := _compare(question, name, found, place)) is not None
    ]
    overall = [
        _overall(question, fair)
        for question in study.questions
        if len(mine := [compared for compared in single if compared.question == question]) == len(datasets)
        and len(fair := [compared for compared in mine if not compared.seen]) > 1
    ]
    return (*_judged(overall), *_judged(single))


@dataclass(frozen=True)
class _Compared:
    """The arms of a question on the same images of one data set, or of all.

    Attributes:
        enough: All its arms were trained enough, or networks are not compared.
        seen: An arm was pretrained on the very data set; that is no evidence on pretraining in general.
        same: Both sides trained the same recipe with the same seeds: one way of training, not two.
    """

    question: Question
    dataset: str
    seeds: int
    paired: PairedRuns
    cost_ratio: float
    mcnemar: tuple[McNemar, ...] = ()
    enough: bool = True
    seen: bool = False
    same: bool = False


def _judged(family: Sequence[_Compared]) -> list[StudyVerdict]:
    """Return the verdicts; Holm's correction is over those that compare, with seeds enough to claim anything."""
    compares = [compared for compared in family if not compared.same]
    counted = [compared for compared in compares if compared.seeds >= ENOUGH_SEEDS] or compares
    within = dict(zip(map(id, counted), holm([compared.paired.p for compared in counted]), strict=True))
    return [_verdict(compared, within.get(id(compared)), len(counted)) for compared in family]


def _verdict(compared: _Compared, adjusted: float | None, family: int) -> StudyVerdict:
    """Return one verdict; `adjusted` is its p after Holm within a family of so many, None where it is in none."""
    paired = compared.paired
    p = 1.0 if compared.same else paired.p
    least = could_find(paired.error, paired.df, tests=1 if adjusted is None else family)
    return StudyVerdict(
        question=compared.question.ask,
        short=compared.question.short,
        dataset=compared.dataset,
        first=" + ".join(compared.question.first),
        second=" + ".join(compared.question.second),
        answer="same recipe"
        if compared.same
        else _answer(paired.difference.value, p if adjusted is None else adjusted, compared.seeds),
        difference=Measured() if compared.same else _measured(paired),
        p=p,
        p_holm=p if adjusted is None else adjusted,
        df=paired.df,
        detectable=None if compared.same else least,
        spread=None if compared.same else paired.of_runs,
        cost_ratio=compared.cost_ratio,
        seeds=compared.seeds,
        mcnemar=() if compared.same else compared.mcnemar,
        enough=compared.enough,
        seen=compared.seen,
    )


def _compare(question: Question, name: str, found: dict[Trial, dict[str, Any]], place: Place) -> _Compared | None:
    """Compare the arms of a question on one data set over the seeds that all have; None where there is none."""
    known = sorted({trial.seed for trial in found})
    seeds = [seed for seed in known if all(Trial(seed, name, arm) in found for arm in question.arms)]
    if not seeds:
        return None
    scores, costs = [], []
    for arms in (question.first, question.second):
        scores.append([np.mean([place.correct(Trial(seed, name, arm)) for arm in arms], axis=0) for seed in seeds])
        costs.append([np.mean([found[Trial(seed, name, arm)]["train_macs"] for arm in arms]) for seed in seeds])
    ratio = float(np.mean(np.divide(costs[0], costs[1])))
    paired = paired_runs(np.stack(scores[0]), np.stack(scores[1]))
    mcnemar = _mcnemar(seeds, *scores) if len(question.arms) == 2 else ()
    same = all(_ways(question.first, name, seed, found) == _ways(question.second, name, seed, found) for seed in seeds)
    return _Compared(question, name, len(seeds), paired, ratio, mcnemar, same=same)


def _ways(arms: Sequence[str], name: str, seed: int, found: Mapping[Trial, dict[str, Any]]) -> list[str]:
    """Return what decided each training of a side; results of older versions do not say, and count as their arm."""
    return sorted(found[Trial(seed, name, arm)].get("trained_as", f"arm {arm}") for arm in arms)


def _flagged(study: Study, compared: _Compared, found: dict[Trial, dict[str, Any]]) -> _Compared:
    """Return it with what a reader must know of its arms."""
    arms = [
        [result for trial, result in found.items() if (trial.dataset, trial.arm) == (compared.dataset, arm)]
        for arm in compared.question.arms
    ]
    return replace(
        compared,
        enough=not study.compare or all(map(_trained_enough, arms)),
        seen=any(_saw(study, result) for results in arms for result in results),
    )


def _recalls(results: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    if any("recalls" not in result for result in results):  # an older version's
        return ()
    return tuple(float(value) for value in np.mean([result["recalls"] for result in results], axis=0))


def _trained_enough(results: Sequence[dict[str, Any]]) -> bool:
    return float(np.mean([result["accuracy"] for result in results])) >= enough(results[0]["classes"])


def _mcnemar(seeds: Sequence[int], first: Sequence[Any], second: Sequence[Any]) -> tuple[McNemar, ...]:
    """Return the exact test of each seed; scores are 1 for right, 0 for wrong."""
    counts = []
    for seed, one, two in zip(seeds, first, second, strict=True):
        b, c = int((one > two).sum()), int((two > one).sum())
        counts.append(McNemar(seed=seed, only_first=b, only_second=c, p=mcnemar_exact(b, c)))
    return tuple(counts)


def _overall(question: Question, mine: Sequence[_Compared]) -> _Compared:
    ratio = float(np.mean([compared.cost_ratio for compared in mine]))
    paired = over_data_sets([compared.paired for compared in mine])
    told = all(compared.enough for compared in mine)
    same = all(compared.same for compared in mine)
    return _Compared(question, ALL, min(compared.seeds for compared in mine), paired, ratio, enough=told, same=same)


def _answer(difference: float, p: float, seeds: int) -> Answer:
    if seeds < ENOUGH_SEEDS:
        return "too few seeds"
    if p >= SIGNIFICANT:
        return "no difference"
    return "helps" if difference > 0 else "hurts"


def _measured(paired: PairedRuns) -> Measured:
    return Measured(value=paired.difference.value, low=paired.difference.low, high=paired.difference.high)


def _mean(results: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([result[key] for result in results]))
