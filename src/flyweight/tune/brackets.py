"""Which trial is trained next, and for how long: a function of what is finished and what others are at. No torch.

A bracket begins with many trials on a short rung; the best of them go on to the next, up to the full training.
Source: Hyperband, arXiv:1603.06560, algorithm 1. Changed: the trials of a bracket are suggested one after the other,
each with all results so far (as in BOHB, arXiv:1807.01774), and several objectives are ranked by fronts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyweight.errors import RecipeError


@dataclass(frozen=True)
class Entrant:
    """A trial as the schedule sees it.

    Attributes:
        bracket: That it belongs to.
        scores: Of each rung that it finished, one value an objective, larger is better.
        failed: True where it cannot be trained.
        ended: True where it is at its end, one way or the other: its bracket takes no more trials.
    """

    number: int
    bracket: int
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    failed: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Train:
    """Train a trial on a rung."""

    number: int
    rung: int

    @property
    def work(self) -> str:
        """Its name among the claims."""
        return f"{self.number}/{self.rung}"


@dataclass(frozen=True)
class Add:
    """Suggest a new trial for a bracket."""

    bracket: int


@dataclass(frozen=True)
class Wait:
    """Others are at all there is to do; what comes next depends on them."""


@dataclass(frozen=True)
class Done:
    """All is trained."""


Step = Train | Add | Wait | Done
Shape = tuple[tuple[int, int], ...]  # (rung, trials that are trained on it)


def plan_brackets(kind: str, rungs: int, eta: float, entrants: int | None = None) -> tuple[Shape, ...]:
    """Return the shapes of the brackets, which are run in turn.

    Args:
        kind: `halving`: all brackets begin on the shortest rung; `hyperband`: in turn on each rung, with fewer trials
            the longer it is, in case short rungs mislead; `none`: every trial is trained in full.
        entrants: Trials that a bracket begins with on the shortest rung; None: so many that one is left at the end.

    Raises:
        RecipeError: An unknown kind.
    """
    if kind == "none" or rungs == 1:
        return (((rungs - 1, 1),),)
    first = entrants or round(eta ** (rungs - 1))
    halving = _shape(0, first, rungs, eta)
    if kind == "halving":
        return (halving,)
    if kind == "hyperband":
        later = (_shape(start, math.ceil(rungs / (rungs - start) * first / eta**start), rungs, eta)
                 for start in range(1, rungs))  # fmt: skip
        return (halving, *later)
    raise RecipeError(f"--stop {kind!r}", do="choose halving, hyperband or none", more="docs/tuning.md#rungs")


def _shape(start: int, entrants: int, rungs: int, eta: float) -> Shape:
    return tuple((rung, max(1, int(entrants / eta ** (rung - start) + 1e-9))) for rung in range(start, rungs))


def count_trainings(shapes: Sequence[Shape], trials: int) -> dict[int, int]:
    """Return how many trainings each rung sees until so many trials are at their end, none of them failed."""
    found: dict[int, int] = {}
    for shape in itertools.cycle(shapes):
        if trials <= 0:
            return found
        alive = min(trials, shape[0][1])
        trials -= alive
        for place, (rung, _) in enumerate(shape):
            found[rung] = found.get(rung, 0) + alive
            alive = min(alive, _kept(shape, place, alive))
    raise AssertionError("a cycle has no end")


def next_step(shapes: Sequence[Shape], entrants: Sequence[Entrant], claimed: Collection[str], *, more: bool) -> Step:
    """Return what a free worker does.

    Args:
        claimed: Work that others are at.
        more: False where no further trial may begin: what has begun is then brought to its end.
    """
    brackets = 1 + max((entrant.bracket for entrant in entrants), default=-1)
    waits = False
    for bracket in range(brackets):
        members = [entrant for entrant in entrants if entrant.bracket == bracket]
        step = _in_bracket(shapes[bracket % len(shapes)], bracket, members, claimed, more=more)
        if isinstance(step, Train | Add):
            return step
        waits = waits or isinstance(step, Wait)
    if more:
        return Add(brackets)
    return Wait() if waits else Done()


def _in_bracket(
    shape: Shape, bracket: int, members: Sequence[Entrant], claimed: Collection[str], *, more: bool
) -> Step:
    alive = list(members)
    for place, (rung, _) in enumerate(shape):
        todo = [one for one in alive if rung not in one.scores and not one.failed]
        free = [one for one in todo if Train(one.number, rung).work not in claimed]
        if free:
            return Train(free[0].number, rung)
        if place == 0 and more and len(members) < shape[0][1] and not any(one.ended for one in members):
            return Add(bracket)
        if todo:
            return Wait()
        alive = _promoted(shape, place, alive)
    return Done()


def _promoted(shape: Shape, place: int, alive: Sequence[Entrant]) -> list[Entrant]:
    """Return those that go on from a rung that all of them finished, the best first: they are trained in this order."""
    rung = shape[place][0]
    trained = [one for one in alive if rung in one.scores]
    best = rank([one.scores[rung] for one in trained])[: _kept(shape, place, len(alive))]
    return [trained[index] for index in best]


def _kept(shape: Shape, place: int, alive: int) -> int:
    """Return how many of those alive on a rung go on; a bracket that was cut short keeps its proportions."""
    keep = shape[place + 1][1] if place + 1 < len(shape) else 0
    return math.ceil(keep * alive / shape[place][1]) if alive < shape[place][1] else keep


def stopped(shapes: Sequence[Shape], entrants: Sequence[Entrant]) -> list[int]:
    """Return the numbers of the trials that were left behind: their rung is finished, and they do not go on."""
    left: list[int] = []
    for bracket in range(1 + max((entrant.bracket for entrant in entrants), default=-1)):
        shape = shapes[bracket % len(shapes)]
        alive = [entrant for entrant in entrants if entrant.bracket == bracket]
        if len(alive) < shape[0][1]:
            continue
        for place, (rung, _) in enumerate(shape[:-1]):
            if any(rung not in one.scores and not one.failed for one in alive):
                break
            on = _promoted(shape, place, alive)
            left += [one.number for one in alive if one not in on and not one.failed]
            alive = on
    return sorted(left)


def rank(scores: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices, best first: by front (how many rounds of undominated ones are taken off before it), then by
    crowding distance, then by order. With one objective: by value.

    Source: Deb et al. 2002 (NSGA-II), sections III A and B.
    """
    values = np.array(scores, dtype=float)
    left, order = list(range(len(values))), []
    while left:
        front = [i for i in left if not any(_dominates(values[j], values[i]) for j in left)]
        distance = _crowding(values[front])
        order += [front[i] for i in sorted(range(len(front)), key=lambda i: (-distance[i], front[i]))]
        left = [i for i in left if i not in front]
    return order


def _dominates(first: Any, second: Any) -> bool:
    return bool((first >= second).all() and (first > second).any())


def _crowding(values: Any) -> list[float]:
    total = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        if spread > 0:
            total[order[0]] = total[order[-1]] = np.inf
            total[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return [float(value) for value in total]
