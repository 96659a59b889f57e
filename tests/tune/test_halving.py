"""Successive halving within a budget of seconds."""

from __future__ import annotations

import itertools

import pytest

from flyweight.tune.halving import affordable, plan_rungs, promote


@pytest.mark.parametrize("costs", [[1e-4] * 20, [1e-4 * (i + 1) for i in range(12)], [1e-3, 1e-5, 1e-4]])
def test_the_rounds_never_cost_more_than_their_share_whoever_wins(costs: list[float]) -> None:
    rungs = plan_rungs(costs, 600.0, finalists=2, final_share=0.5)
    dearest = sorted(costs, reverse=True)
    assert sum(rung.images * sum(dearest[: rung.entrants]) for rung in rungs) <= 300.0
    assert [rung.keep for rung in rungs][-1] == 2
    assert all(later.images > earlier.images for earlier, later in itertools.pairwise(rungs))


def test_two_candidates_go_straight_to_the_final() -> None:
    assert plan_rungs([1e-4, 1e-3], 60.0, finalists=2) == []


def test_what_is_too_dear_for_the_time_is_left_out_cheapest_first() -> None:
    assert affordable({"cheap": 1e-5, "dear": 1.0, "middle": 1e-4}, 60.0, 1000) == ["cheap", "middle"]


def test_the_best_are_promoted_in_order() -> None:
    assert promote({"a": 0.1, "b": 0.9, "c": 0.5}, 2) == ["b", "c"]
