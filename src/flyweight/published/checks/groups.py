"""Rows that belong together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from flyweight.published.table import Row


def grouped(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> list[list[Row]]:
    """Return the rows by `key`, groups and rows in the order of the table."""
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())
