"""Successive halving: many candidates see few images, the better third of them more, the best see most.

Source: Jamieson and Talwalkar, arXiv:1502.07943; Li et al. (Hyperband), arXiv:1603.06560, section 2.
Changed: the resource is images seen, and its amount follows from the seconds there are and what each candidate costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

ETA = 3


@dataclass(frozen=True)
class Rung:
    """One round: `entrants` candidates each see `images` training images; the best `keep` go on."""

    number: int
    entrants: int
    images: int
    keep: int


def affordable(costs: Mapping[Key, float], seconds: float, least_images: int) -> list[Key]:
    """Return the candidates, cheapest first, that can all see `least_images` within a third of the time.

    Args:
        costs: Training seconds per image of each candidate.
        seconds: Time there is for all training.
    """
    kept: list[Key] = []
    spent = 0.0
    for key in sorted(costs, key=lambda key: costs[key]):
        spent += costs[key] * least_images
        if kept and spent > seconds / ETA:
            break
        kept.append(key)
    return kept


def plan_rungs(costs: Sequence[float], seconds: float, *, finalists: int, final_share: float = 0.5) -> list[Rung]:
    """Return the rounds before the final: a third goes on each time, until at most `finalists` are left.

    The rounds share `1 - final_share` of the seconds equally, each priced by the dearest candidates that might be in
    it, so that the plan holds whoever wins.
    """
    sizes = [len(costs)]
    while sizes[-1] > finalists:
        sizes.append(max(finalists, -(-sizes[-1] // ETA)))
    dearest = sorted(costs, reverse=True)
    share = seconds * (1.0 - final_share) / max(len(sizes) - 1, 1)
    return [
        Rung(number, entrants, int(share / sum(dearest[:entrants])), keep)
        for number, (entrants, keep) in enumerate(itertools.pairwise(sizes))
    ]


def promote(scores: Mapping[Key, float], keep: int) -> list[Key]:
    """Return the `keep` best, best first; equal scores by the order they came in."""
    order = sorted(scores, key=lambda key: -scores[key])
    return order[:keep]
