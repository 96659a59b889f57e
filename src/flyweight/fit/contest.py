"""Train the candidates that are within budget by successive halving, then the finalists on all images."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight.data.dataset import Dataset
from flyweight.data.split import Split
from flyweight.data.subset import balanced_subset
from flyweight.errors import ModelError, RecipeError, TrainingError
from flyweight.fit.candidates import Candidate, recipe_for
from flyweight.fit.weigh import Weighed
from flyweight.measure.accuracy import METRICS, score
from flyweight.train.answers import validation_logits
from flyweight.train.recipe import OptimPart, Recipe, StagePart, load_recipe
from flyweight.train.run import Event, Finished, run
from flyweight.train.trained import Trained
from flyweight.tune.halving import affordable, plan_rungs, promote

LEAST_EPOCHS = 3
LEAST_IMAGES = 3000  # seen by every candidate in the first round
FINALISTS = 2
FAILED = "training failed"
QAT_LR = 0.005  # small: the weights are trained, only their rounding is new
SAFETY = 0.75  # share of the time that is planned: validation, decoding and augmentation take the rest


@dataclass(frozen=True)
class Round:
    """What one candidate will do in one round: pass `epochs` times over `subset` of the training images."""

    number: int
    candidate: Candidate
    epochs: int
    subset: int
    final: bool = False


@dataclass(frozen=True)
class Progressed:
    """An event of the training of one candidate in one round; `done` of `total` trainings are finished."""

    round: Round
    event: Event
    done: int
    total: int


@dataclass(frozen=True)
class Outcome:
    """How far a candidate came.

    Attributes:
        status: "finalist", "stopped at rung N", "too slow to train in the time", or "training failed: ...".
            A candidate whose training failed does not ship, though its earlier training is kept.
        trained: Its last training; None where there was none.
        score: The metric on validation of that training.
        seconds: Training time spent on it.
    """

    weighed: Weighed
    status: str
    trained: Trained | None = None
    score: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Contest:
    """All that the rounds need to know.

    Attributes:
        metric: What is maximised on validation; a name in `measure.accuracy.METRICS`.
        initial: Weights to start from, by name of the network they belong to.
    """

    dataset: Dataset
    parts: Split
    folder: Path
    metric: str
    channels: int
    seed: int
    seconds: float
    base: Recipe | None = None
    initial: Trained | None = None


def compete(contest: Contest, entrants: Sequence[Weighed]) -> Iterator[Progressed | list[Outcome]]:
    """Yield progress, and last the outcome of every entrant. Finished trainings in the folder are not repeated."""
    costs = {entrant.candidate: entrant.train_seconds_per_image for entrant in entrants}
    weighed = {entrant.candidate: entrant for entrant in entrants}
    seconds = contest.seconds * SAFETY
    field = affordable(costs, seconds, LEAST_IMAGES)
    outcomes = {c: Outcome(weighed[c], "too slow to train in the time") for c in costs if c not in field}
    rungs = plan_rungs([costs[c] for c in field], seconds, finalists=FINALISTS)
    total, done = sum(rung.entrants for rung in rungs) + min(FINALISTS, len(field)), 0
    for rung in rungs:
        scores: dict[Candidate, float] = {}
        for candidate in field:
            planned = _round(contest, rung.number, candidate, rung.images)
            outcomes[candidate] = yield from _train(contest, weighed[candidate], planned, outcomes, done, total)
            done += 1
            scores[candidate] = -1.0 if outcomes[candidate].score is None else float(outcomes[candidate].score or 0.0)
        field = [c for c in promote(scores, rung.keep) if outcomes[c].trained is not None]
    share = seconds * (0.5 if rungs else 1.0) / max(len(field), 1)
    for candidate in field:
        planned = _round(contest, len(rungs), candidate, int(share / costs[candidate]), full=True)
        found = yield from _train(contest, weighed[candidate], planned, outcomes, done, total)
        done += 1
        outcomes[candidate] = _finalist(found)
    yield [outcomes[entrant.candidate] for entrant in entrants]


def _finalist(found: Outcome) -> Outcome:
    return found if found.status.startswith(FAILED) else dataclasses.replace(found, status="finalist")


def _round(contest: Contest, number: int, candidate: Candidate, images: int, full: bool = False) -> Round:
    available = len(contest.parts.train)
    epochs = max(LEAST_EPOCHS, images // available)
    subset = available if full else min(available, max(images // epochs, 10 * len(contest.dataset.classes)))
    return Round(number, candidate, epochs, subset, final=full)


def _train(
    contest: Contest, weighed: Weighed, planned: Round, outcomes: Mapping[Candidate, Outcome], done: int, total: int
) -> Generator[Progressed, None, Outcome]:
    """Yield progress and return the outcome of one candidate's training in one round."""
    before = outcomes.get(planned.candidate)
    recipe = recipe_for(planned.candidate, channels=contest.channels, seed=contest.seed, base=contest.base)
    stages = _stages(planned, begins=before is None or before.trained is None) or recipe.stages
    recipe = recipe.model_copy(update={"epochs": planned.epochs, "stages": stages})
    parts = dataclasses.replace(
        contest.parts, train=balanced_subset(contest.dataset, contest.parts.train, planned.subset)
    )
    folder = contest.folder / f"rung{planned.number}" / planned.candidate.name
    seconds = before.seconds if before else 0.0
    initial = before.trained if before and before.trained else _initial(contest, planned.candidate)
    trained: Trained | None = None
    try:
        for event in run(contest.dataset, recipe, folder, parts=parts, initial=initial):
            if isinstance(event, Finished):
                trained = event.trained
            yield Progressed(planned, event, done, total)
    except (TrainingError, ModelError, RecipeError) as error:
        if not (isinstance(error, TrainingError) or planned.candidate.pretrained):
            raise  # weights that nobody named end no fit; what the user asked for does
        return Outcome(weighed, f"{FAILED}: {error.what}", before.trained if before else None, seconds=seconds)
    assert trained is not None
    seconds += sum(row["train_seconds"] for row in trained.history)
    value = validation_score(contest, trained)
    return Outcome(weighed, f"stopped at rung {planned.number}", trained, value, seconds)


def _stages(planned: Round, *, begins: bool) -> tuple[StagePart, ...]:
    """Return what a candidate trains in the round; () where the recipe says it already.

    One with pretrained weights learns as the recipe `finetune` says, its head by itself once. An int8 one learns on the
    levels of its file too, in its last round.
    """
    first: tuple[StagePart, ...] = ()
    middle, last = StagePart(name="float"), first
    if planned.candidate.pretrained:
        *head, middle = load_recipe("finetune").stages
        first = tuple(head) if begins else ()
    if planned.final and planned.candidate.precision == "int8":
        rate = OptimPart(name="sgd", lr=QAT_LR, weight_decay=0.0)
        last = (StagePart(name="int8", quantize="int8", epochs=max(1, planned.epochs // 10), optim=rate),)
    if not (planned.candidate.pretrained or last):
        return ()
    return (*first, middle.model_copy(update={"epochs": planned.epochs}), *last)


def _initial(contest: Contest, candidate: Candidate) -> Trained | None:
    given = contest.initial
    return given if given is not None and given.architecture.name == candidate.model else None


def validation_score(contest: Contest, trained: Trained) -> float:
    """Return the contest's metric of a training on the validation images (0 to 1)."""
    logits, labels = validation_logits(contest.dataset, trained, contest.parts)
    return METRICS[contest.metric](score(logits, labels, trained.classes))
