"""Where each storage lies in the one static array: none over another that is still needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyweight.export.c.values import Step, Storage

ALIGNMENT = 4


@dataclass(frozen=True)
class Arena:
    """The plan.

    Attributes:
        offsets: In bytes, by the number of a storage.
        nbytes: Of the whole array.
    """

    offsets: Mapping[int, int]
    nbytes: int


@dataclass
class _Life:
    size: int
    first: int
    last: int


def plan(steps: Sequence[Step], outside: Sequence[Storage]) -> Arena:
    """Return where the storages lie that the caller does not give (`outside`).

    A step writes over an input where it may and nobody reads that any more. Otherwise the largest storage is
    placed first, each at the lowest place that is free while it lives.
    """
    callers = {storage.number for storage in outside}
    lives, owners = _lives(steps, callers)
    places: dict[int, int] = {}
    for number in sorted(lives, key=lambda one: (-lives[one].size, lives[one].first)):
        taken = sorted(
            (places[other], places[other] + lives[other].size) for other in places if _meet(lives[number], lives[other])
        )
        at = 0
        for begin, end in taken:
            if at + lives[number].size <= begin:
                break
            at = max(at, end)
        places[number] = at
    offsets = {number: places[owner] for number, owner in owners.items()}
    return Arena(offsets, max((places[one] + lives[one].size for one in places), default=0))


def _lives(steps: Sequence[Step], callers: set[int]) -> tuple[dict[int, _Life], dict[int, int]]:
    """Return how long each place is needed, and the place that each storage has."""
    last = {storage.number: at for at, step in enumerate(steps) for storage in (*step.inputs, step.output)}
    lives: dict[int, _Life] = {}
    owners: dict[int, int] = {}
    for at, step in enumerate(steps):
        number = step.output.number
        if number in callers or number in owners:
            continue
        beneath = None if step.over is None else step.inputs[step.over]
        owner = None if beneath is None else owners.get(beneath.number)
        if beneath is not None and owner is not None:
            dies = lives[owner].last == at and [storage.number for storage in step.inputs].count(beneath.number) == 1
            if dies and step.output.nbytes <= beneath.nbytes:
                owners[number], lives[owner].last = owner, last[number]
                continue
        size = -(-step.output.nbytes // ALIGNMENT) * ALIGNMENT
        owners[number], lives[number] = number, _Life(size, at, last[number])
    return lives, owners


def _meet(one: _Life, other: _Life) -> bool:
    return one.first <= other.last and other.first <= one.last
