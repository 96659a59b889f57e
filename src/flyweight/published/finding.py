"""One thing that counting or arithmetic has against a published claim."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from flyweight.published.table import Row

Level = Literal["wrong", "unsupported"]


@dataclass(frozen=True)
class Finding:
    """A claim that does not hold, or that what is printed cannot carry.

    Attributes:
        level: "wrong": counting or arithmetic contradicts it. "unsupported": it may hold, the table does not show it.
        check: Name of the check, a key of `CHECKS`.
        table: Name of the table.
        row: Line of the file.
        model: The network.
        column: Where the claim stands.
        claimed: What is claimed, as printed.
        counted: What was counted or computed instead; "" where nothing was.
        explanation: Why, in a sentence.
        do: What to write instead.
    """

    level: Level
    check: str
    table: str
    row: int
    model: str
    column: str
    claimed: str
    counted: str
    explanation: str
    do: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def finding(
    level: Level, check: str, row: Row, column: str, counted: str, explanation: str, do: str, claimed: str | None = None
) -> Finding:
    """Return a finding about a cell of `row`."""
    if claimed is None:
        number = row.number(column)
        claimed = number.text if number else row.text(column)
    return Finding(level, check, row.table, row.line, row.model, column, claimed, counted, explanation, do)
