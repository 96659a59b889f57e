"""Printed numbers: a value is known to half a unit of its last digit, no better."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PRINTED = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")
_RANGE = re.compile(r"(.+?)\s*(?:\.\.|–| to )\s*(.+)")

SLACK = 0.001  # beside the rounding of the digits: 0.1 % of the value


@dataclass(frozen=True)
class Number:
    """A number as a table prints it.

    Attributes:
        value: The number, or the lower end of a range.
        half: Half a unit of the last digit printed: 0.005 for 28.59.
        text: As printed.
        upper: The upper end of a range; None for a single number.
    """

    value: float
    half: float
    text: str
    upper: float | None = None

    @property
    def decimals(self) -> int:
        """How many digits are printed behind the point."""
        return _decimals(self.text.split("..")[0])

    def agrees(self, counted: float, slack: float = SLACK) -> bool:
        """Return True when `counted` could have been printed so, give or take a share of it."""
        return abs(self.value - counted) <= self.half + slack * abs(counted) + 1e-9

    def prints(self, counted: float) -> bool:
        """Return True when `counted` rounds to exactly what is printed."""
        return abs(self.value - counted) <= self.half + 1e-9


def read_number(text: str) -> Number:
    """Return the number that e.g. `14,862`, `0.17`, `+2.5` or, as a range, `1.5..3.5` means.

    Raises:
        ValueError: Not such a number; `28,59` is not one, a comma separates thousands here.
    """
    found = _RANGE.fullmatch(text)
    low, high = (found[1].strip(), found[2].strip()) if found else (text.strip(), None)
    for part in (low, high):
        if part is not None and not _PRINTED.fullmatch(part):
            raise ValueError(text)
    upper = None if high is None else _value(high)
    if upper is not None and upper < _value(low):
        raise ValueError(text)
    half = 0.5 * 10.0 ** -max(_decimals(low), _decimals(high or low))
    return Number(_value(low), half, text.strip() if upper is None else f"{low}..{high}", upper)


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])
