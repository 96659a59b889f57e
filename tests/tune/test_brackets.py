"""What is trained next: a function of what is finished, the same for whoever asks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from flyweight.errors import RecipeError
from flyweight.tune.brackets import (
    Add,
    Done,
    Entrant,
    Shape,
    Train,
    Wait,
    count_trainings,
    next_step,
    plan_brackets,
    rank,
    stopped,
)

HALVING = plan_brackets("halving", 3, 3)


def play(
    shapes: Sequence[Shape], trials: int, quality: Sequence[float], *, workers: int = 1, seed: int = 0
) -> tuple[list[Entrant], list[Train]]:
    """Run a whole search on given qualities, with as many workers, who finish in random order."""
    entrants: list[Entrant] = []
    running: list[Train] = []
    done: list[Train] = []
    draw = random.Random(seed)
    while True:
        more = len(entrants) < trials
        step = next_step(shapes, entrants, {one.work for one in running}, more=more)
        if isinstance(step, Add):
            entrants.append(Entrant(len(entrants), step.bracket))
        elif isinstance(step, Train) and len(running) < workers:
            running.append(step)
        elif isinstance(step, Done):
            return entrants, done
        else:
            finished = running.pop(draw.randrange(len(running)))
            old = entrants[finished.number]
            value = quality[finished.number] + 0.1 * finished.rung
            entrants[finished.number] = Entrant(old.number, old.bracket, {**old.scores, finished.rung: (value,)})
            done.append(finished)


def test_the_default_bracket_ends_with_one_full_training() -> None:
    assert HALVING == (((0, 9), (1, 3), (2, 1)),)


def test_hyperband_has_brackets_that_begin_on_longer_rungs() -> None:
    shapes = plan_brackets("hyperband", 3, 3)
    assert shapes[0] == HALVING[0]
    assert [shape[0][0] for shape in shapes] == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_best_go_on_whoever_finishes_first_and_nothing_is_trained_twice(workers: int) -> None:
    quality = [0.1, 0.9, 0.3, 0.5, 0.8, 0.2, 0.7, 0.4, 0.6]
    entrants, done = play(HALVING, 9, quality, workers=workers, seed=workers)
    assert len(done) == len(set(done)) == 9 + 3 + 1
    assert {one.number for one in entrants if 1 in one.scores} == {1, 4, 6}
    assert [one.number for one in entrants if 2 in one.scores] == [1]
    assert stopped(HALVING, entrants) == [0, 2, 3, 4, 5, 6, 7, 8]


def test_no_trial_goes_on_while_one_of_its_rung_is_at_work() -> None:
    entrants = [Entrant(number, 0, {0: (float(number),)}) for number in range(8)] + [Entrant(8, 0)]
    assert next_step(HALVING, entrants, {"8/0"}, more=False) == Wait()
    assert next_step(HALVING, entrants, {"8/0"}, more=True) == Add(1)


def test_a_failed_trial_holds_nobody_up() -> None:
    entrants = [Entrant(number, 0, {0: (float(number),)}) for number in range(8)] + [Entrant(8, 0, failed=True)]
    assert next_step(HALVING, entrants, (), more=False) == Train(7, 1)  # the best of those that go on comes first


def test_a_bracket_that_is_cut_short_still_ends_with_a_full_training() -> None:
    _, done = play(HALVING, 4, [0.4, 0.1, 0.3, 0.2])
    assert Train(0, 2) in done


def test_a_bracket_that_has_ended_takes_no_more_trials() -> None:
    entrants, _ = play(HALVING, 4, [0.4, 0.1, 0.3, 0.2])
    ended = [Entrant(one.number, one.bracket, one.scores, ended=True) for one in entrants]
    assert next_step(HALVING, ended, (), more=True) == Add(1)


def test_without_stopping_every_trial_is_trained_in_full() -> None:
    _, done = play(plan_brackets("none", 3, 3), 4, [0.1, 0.2, 0.3, 0.4])
    assert [one.rung for one in done] == [2, 2, 2, 2]


@pytest.mark.parametrize("kind", ["none", "halving", "hyperband"])
@pytest.mark.parametrize("trials", [1, 4, 9, 12, 31])
def test_the_trainings_that_are_foreseen_are_those_of_a_search(kind: str, trials: int) -> None:
    shapes = plan_brackets(kind, 3, 3)
    draw = random.Random(trials)
    _, done = play(shapes, trials, [draw.random() for _ in range(trials)])
    assert count_trainings(shapes, trials) == Counter(one.rung for one in done)


def test_several_objectives_are_ranked_by_front_then_by_crowding() -> None:
    points = [(0.9, -5.0), (0.8, -1.0), (0.7, -2.0), (0.85, -3.0), (0.6, -6.0)]
    order = rank(points)
    assert set(order[:3]) == {0, 1, 3}  # beaten by none
    assert order[3:] == [2, 4]
    assert rank([(0.1,), (0.3,), (0.3,), (0.2,)]) == [1, 2, 3, 0]
    assert rank([]) == []


def test_an_unknown_way_of_stopping_is_refused() -> None:
    with pytest.raises(RecipeError, match="halving, hyperband or none"):
        plan_brackets("median", 3, 3)
