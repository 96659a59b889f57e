"""`flyweight audit`: what counting has against published tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.errors import DataError
from flyweight.published.audit import Audited, audit_files
from flyweight.published.finding import Finding
from flyweight.published.shipped import STUDIES, resolve

_COLOURS = {"wrong": "red", "unsupported": "yellow"}
_PIPE = 130  # columns of a page that goes into a file or another program


def audit(
    tables: Annotated[list[str] | None, typer.Argument(help="CSV files, or shipped names (see --list).")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the shipped tables.")] = False,
    strict: Annotated[bool, typer.Option(help="End with 1 when anything was found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute what published tables claim about networks, and show what counting contradicts.

    The columns of a table: docs/audit-tables.md.
    """
    if list_:
        _list(as_json=as_json)
        return
    if not tables:
        raise DataError(
            "no table to audit",
            do="give a CSV file, or a name of `flyweight audit --list`",
            more="docs/audit-tables.md#the-file",
        )
    paths = [path for name in tables for path in resolve(name)]
    if sys.stderr.isatty():
        with Console(stderr=True).status("counting"):
            audited = audit_files(paths)
    else:
        audited = audit_files(paths)
    if as_json:
        print(json.dumps(audited.to_json(), indent=2, ensure_ascii=False))
    else:
        _show(audited)
    if strict and audited.findings:
        raise typer.Exit(1)


def _list(*, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: {"source": source, "tables": names} for name, (source, names) in STUDIES.items()}))
        return
    table = Table("study", "tables", "source", box=None, header_style="bold")
    for name, (source, names) in STUDIES.items():
        table.add_row(name, "\n".join(names), source)
    Console().print(table)


def _show(audited: Audited) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE)
    for name in dict.fromkeys(found.table for found in audited.findings):
        table = Table(title=escape(name), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("level", no_wrap=True)
        table.add_column("row", justify="right", no_wrap=True)
        for heading in ("model", "claim", "counted"):
            table.add_column(heading, overflow="fold", max_width=22)
        table.add_column("why", overflow="fold")
        for group in _alike([found for found in audited.findings if found.table == name]):
            for row in _lines(group):
                table.add_row(*map(escape, row), style=_COLOURS[group[0].level])
            table.add_section()
        console.print(table)
    print(
        f"{audited.count('wrong')} wrong, {audited.count('unsupported')} unsupported, {len(audited.rows)} rows checked"
    )


def _alike(findings: list[Finding]) -> list[list[Finding]]:
    """Put together what is said of several networks in the same words."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.check, found.explanation), []).append(found)
    return list(groups.values())


def _lines(group: list[Finding]) -> Iterator[list[str]]:
    """Yield one line for each network; the reason stands beside the first, with its `do` where that is the same."""
    first = group[0]
    do = first.do if len({found.do for found in group}) == 1 else "write what is counted"
    for found in group:
        why = f"{first.check}\n{first.explanation}\ndo: {do}" if found is first else "as above"
        level = found.level if found is first else ""
        yield [level, str(found.row), found.model, f"{found.column} {found.claimed}", found.counted, why]
