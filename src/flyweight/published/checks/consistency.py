"""Numbers against other numbers of the same tables."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from flyweight.published.checks.groups import grouped
from flyweight.published.count import count
from flyweight.published.finding import Finding, Level, finding
from flyweight.published.numbers import Number
from flyweight.published.table import Row


def same_accuracy_everywhere(rows: Sequence[Row]) -> Iterator[Finding]:
    """One network, data set and arm has one accuracy, wherever it is printed."""
    wanted = [row for row in rows if row.number("accuracy") and row.text("arm") and not row.fixed]
    yield from _differences(wanted, "accuracy", "same_accuracy_everywhere", lambda row: row.text("arm"), "unsupported")


def same_params_everywhere(rows: Sequence[Row]) -> Iterator[Finding]:
    """One network with one head has one number of parameters, wherever it is printed."""
    for column in ("params", "params_m"):
        # Of networks with branches two counts are right: fused and un-fused.
        wanted = [row for row in rows if row.number(column) and not count(row).branched]
        yield from _differences(
            wanted, column, "same_params_everywhere", lambda row: row.num_classes, "wrong",
        )  # fmt: skip


def _differences(
    rows: Sequence[Row], column: str, check: str, key: Callable[[Row], Hashable], level: Level
) -> Iterator[Finding]:
    def whole(row: Row) -> Hashable:
        # What is built changes the parameters of a name, never what an accuracy is said to be of.
        layers = row.text("layers") if column != "accuracy" else ""
        side = (row.image_size, row.in_chans) if column == "accuracy" or layers else ()
        data = row.text("dataset") if column == "accuracy" else ""
        return (row.model, layers, row.text("weights"), row.text("pretrained"), data, side, key(row))

    for group in grouped(rows, whole):
        first = group[0]
        others = [row for row in group[1:] if _differ(first.numbers[column], row.numbers[column])]
        if others:
            last = others[-1]
            places = [f"{row.numbers[column].text} ({row.table}, row {row.line})" for row in (first, *others)]
            arm = f", {last.text('arm')}" if column == "accuracy" else ""
            yield finding(
                level, check, last, column, first.numbers[column].text,
                f"the same {column} of {last.model}{arm} is printed as {' and as '.join(places)}; at most one can hold",
                "print the value of the log in every table, with the run it comes from",
            )  # fmt: skip


def _differ(first: Number, second: Number) -> bool:
    """Return True when two printed numbers cannot be one value: rounded to the coarser one's digits they differ."""
    return abs(first.value - second.value) > 1.01 * max(first.half, second.half)


def gain_arithmetic(row: Row) -> Iterator[Finding]:
    """A gain is accuracy minus baseline, and lies in the range that is claimed."""
    gain, accuracy, baseline = row.number("gain"), row.number("accuracy"), row.number("baseline")
    if gain is None or accuracy is None or baseline is None:
        return
    true, slack = accuracy.value - baseline.value, accuracy.half + baseline.half + gain.half + 1e-9
    upper = gain.value if gain.upper is None else gain.upper
    if gain.value - slack <= true <= upper + slack:
        return
    yield finding(
        "wrong", "gain_arithmetic", row, "gain", f"{true:+.2f}",
        f"{accuracy.text} - {baseline.text} = {true:+.2f} points, not {gain.text}", f"write {true:+.2f} points",
    )  # fmt: skip


def gain_repeated(rows: Sequence[Row]) -> Iterator[Finding]:
    """No two networks gain the same to the second digit behind the point: chance seldom does that."""
    wanted = [row for row in rows if (a := row.number("accuracy")) and (b := row.number("baseline"))
              and min(a.decimals, b.decimals) >= 2]  # fmt: skip
    for group in grouped(wanted, lambda row: (row.table, _gain(row))):
        if len({row.model for row in group}) > 1:
            for row in group:
                others = ", ".join(other.model for other in group if other is not row)
                yield finding(
                    "unsupported", "gain_repeated", row, "accuracy", _gain(row),
                    f"{row.model} gains exactly {_gain(row)} points, and so does {others}: measured gains seldom "
                    "repeat to two digits",
                    "publish both logs, or withdraw the numbers",
                )  # fmt: skip


def _gain(row: Row) -> str:
    return f"{row.numbers['accuracy'].value - row.numbers['baseline'].value:+.2f}"
