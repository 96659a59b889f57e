"""The compact letter display and the Pareto front."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flyweight.measure.statistics import letters, pareto


def test_letters_of_a_chain_overlap() -> None:
    differ = {frozenset("AC"), frozenset("AD"), frozenset("BD")}
    found = letters("ABCD", lambda a, b: frozenset((a, b)) in differ)
    assert found == {"A": "a", "B": "ab", "C": "bc", "D": "c"}


@pytest.mark.parametrize("seed", range(20))
def test_two_names_share_a_letter_exactly_where_they_do_not_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [str(number) for number in range(7)]
    differ = {frozenset(pair) for pair in itertools.combinations(names, 2) if rng.random() < 0.5}
    found = letters(names, lambda a, b: frozenset((a, b)) in differ)
    for a, b in itertools.combinations(names, 2):
        assert bool(set(found[a]) & set(found[b])) == (frozenset((a, b)) not in differ)
    assert found["0"].startswith("a")


def test_without_differences_all_share_one_letter() -> None:
    assert set(letters("XYZ", lambda a, b: False).values()) == {"a"}


def test_the_front_is_what_no_other_point_beats() -> None:
    points = [(1.0, 0.5), (2.0, 0.6), (2.0, 0.55), (3.0, 0.6), (0.5, 0.1)]
    assert pareto(points) == [True, True, False, False, True]
    assert pareto([(1.0, 1.0), (1.0, 1.0)]) == [True, True]
