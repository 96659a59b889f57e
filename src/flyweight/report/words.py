"""Numbers as people read them: shares as percent, bytes in KB of 1000, never more digits than the number deserves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flyweight.measure.budget import LIMITS, show
from flyweight.report.facts import BudgetCheck, Measured

NONE = "–"


def percent(share: float | None) -> str:
    """Return 0.9123 as "91.2 %"."""
    return NONE if share is None else f"{100 * share:.1f} %"


def percent_interval(found: Any) -> str:
    """Return the interval of a share as "90.1–92.4 %"; "" where there is none. Takes anything with `low`, `high`."""
    if found.low is None or found.high is None:
        return ""
    return f"{100 * found.low:.1f}–{100 * found.high:.1f} %"


def ms(value: float | None) -> str:
    """Return a latency in ms with three significant digits."""
    return NONE if value is None else f"{value:#.3g}".rstrip(".") + " ms"


def ms_interval(found: Measured) -> str:
    """Return the interval of a latency; "" where there is none."""
    if found.low is None or found.high is None:
        return ""
    return f"{found.low:#.3g}–{found.high:#.3g}"


def file_size(count: int | None) -> str:
    """Return bytes as "812 B", "44.1 KB", "3.20 MB" (KB = 1000 bytes)."""
    return NONE if count is None else _scaled(count, ("B", "KB", "MB", "GB", "TB"))


def counted(count: int | None) -> str:
    """Return a count as "812", "44.1 k", "3.20 M"."""
    return NONE if count is None else _scaled(count, ("", "k", "M", "G", "T")).strip()


def plain(value: float | None) -> str:
    """Return a number with three significant digits."""
    return NONE if value is None else f"{value:.3g}"


def limit(check: BudgetCheck) -> str:
    """Return a budget's limit in its unit."""
    return _budget(check.metric, check.limit)


def found(check: BudgetCheck) -> str:
    """Return what was found for a budget's limit, in its unit, with its interval."""
    if check.value is None:
        return "not measured"
    value = _budget(check.metric, check.value)
    if check.low is None or check.high is None:
        return value
    return f"{value} ({_budget(check.metric, check.low)} to {_budget(check.metric, check.high)})"


def share_of_limit(check: BudgetCheck) -> float | None:
    """Return value / limit, for the bar; None where one is missing."""
    return None if check.value is None or check.limit <= 0 else check.value / check.limit


def _budget(metric: str, value: float) -> str:
    return show(metric, value) if metric in LIMITS else f"{value:,.6g}"


def _scaled(count: float, units: tuple[str, ...]) -> str:
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {units[0]}" if unit == 0 else f"{value:#.3g}".rstrip(".") + f" {units[unit]}"


FILTERS: dict[str, Callable[..., Any]] = {
    word.__name__: word
    for word in (
        percent, percent_interval, ms, ms_interval, file_size, counted, plain, limit, found, share_of_limit
    )
}  # fmt: skip
