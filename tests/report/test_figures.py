import itertools

import numpy as np
import pytest

from flyweight.report import BudgetCheck, Measured, words
from flyweight.report.figures import confused, confusion, draw, front, learning
from flyweight.report.sample import sample_facts


def test_the_front_holds_exactly_the_points_that_none_beats_in_both() -> None:
    points = [tuple(map(float, p)) for p in np.random.default_rng(0).integers(0, 12, (40, 2))]

    def beaten(a: tuple[float, ...]) -> bool:
        return any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in points)

    assert front(points) == sorted({p for p in points if not beaten(p)})


def test_the_most_confused_pairs_come_in_order_of_images() -> None:
    counts = ((8, 2, 0), (1, 5, 4), (0, 0, 3))
    assert confused(("a", "b", "c"), counts) == [("b", "c", 4, 0.4), ("a", "b", 2, 0.2), ("b", "a", 1, 0.1)]


@pytest.mark.parametrize("size", [2, 15, 16, 37, 200])
def test_the_axes_of_a_matrix_never_carry_more_than_25_names(size: int) -> None:
    figure = confusion([f"class {i}" for i in range(size)], np.eye(size, dtype=int).tolist())
    ticks = figure["layout"]["xaxis"]["tickvals"]
    assert len(ticks) <= 25
    assert {b - a for a, b in itertools.pairwise(ticks)} <= {-(-size // 25)}
    assert ("texttemplate" in figure["data"][0]) == (size <= 15)


def test_a_class_without_images_gives_an_empty_row_and_no_division_by_zero() -> None:
    assert confusion(("a", "b"), ((0, 0), (1, 3)))["data"][0]["z"] == [[0, 0], [0.5, 0.866]]


def test_the_curve_of_the_pick_is_drawn_last_and_each_kind_has_one_legend() -> None:
    facts = sample_facts()
    kinds = {candidate.name: candidate.kind for candidate in facts.candidates}
    data = learning(facts.curves, kinds, "val_accuracy")["data"]
    assert data[-1]["name"] == "pick"
    legends = [trace["name"] for trace in data if trace["showlegend"]]
    assert sorted(legends) == ["finalist", "pick", "stopped early"]


def test_markup_in_names_reaches_plotly_escaped() -> None:
    figures = draw(sample_facts(("<b>bold</b>", "<a href='javascript:alert(1)'>x</a>")))
    assert "<a " not in str(figures["plot-confusion"])
    assert "<b>bold" not in str(figures["plot-confusion"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.file_size(999), "999 B"),
        (words.file_size(999_600), "1.00 MB"),
        (words.file_size(47_300), "47.3 KB"),
        (words.counted(11_200_000), "11.2 M"),
        (words.counted(0), "0"),
        (words.ms(0.2104), "0.210 ms"),
        (words.ms(123.4), "123 ms"),
        (words.ms(None), "–"),
        (words.percent(0.91234), "91.2 %"),
        (words.percent_interval(Measured(value=0.5, low=0.4, high=0.6)), "40.0–60.0 %"),
        (words.limit(BudgetCheck(metric="size", limit=500e3, status="met")), "500KB"),
        (words.found(BudgetCheck(metric="macs", limit=1, status="unverified")), "not measured"),
    ],
)
def test_numbers_are_written_as_people_read_them(said: str, expected: str) -> None:
    assert said == expected
