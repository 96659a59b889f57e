"""Audit published tables: read them, run every check, give back what does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.published.checks import CHECKS
from flyweight.published.count import check_names
from flyweight.published.finding import Finding
from flyweight.published.table import Row, load_table


@dataclass(frozen=True)
class Audited:
    """What was checked and what was found, in the order of the tables and rows."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    def count(self, level: str) -> int:
        """Return how many findings are of a level."""
        return sum(found.level == level for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the whole as plain values."""
        return {
            "tables": list(dict.fromkeys(row.table for row in self.rows)),
            "rows": len(self.rows),
            "wrong": self.count("wrong"),
            "unsupported": self.count("unsupported"),
            "findings": [found.to_json() for found in self.findings],
        }


def audit_files(paths: Sequence[Path]) -> Audited:
    """Return what counting has against the tables in these CSV files, taken together.

    Raises:
        DataError: A file cannot be read as a table.
        ModelError: A row names a network that does not exist, or that cannot take its input.
        MissingExtraError: A row names a network, and torch is not installed.
    """
    rows: list[Row] = []
    for path in dict.fromkeys(paths):
        loaded = load_table(path)
        check_names(loaded, str(path))
        rows += loaded
    return audit_rows(rows)


def audit_rows(rows: Sequence[Row]) -> Audited:
    """Return what counting has against these rows; those of several tables are also held against each other."""
    found = [finding for check in CHECKS.values() for finding in check(rows)]
    tables = {table: place for place, table in enumerate(dict.fromkeys(row.table for row in rows))}
    levels = {"wrong": 0, "unsupported": 1}
    found.sort(key=lambda finding: (tables[finding.table], levels[finding.level], finding.row))
    return Audited(tuple(rows), tuple(found))
