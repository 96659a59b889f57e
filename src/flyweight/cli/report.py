"""`flyweight report`: the page again, from its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    path: Annotated[Path, typer.Argument(help="A folder that holds report.json, or the file itself.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and report.json; by default the same.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with the paths.")] = False,
) -> None:
    """Rebuild the HTML page of a report.json; nothing is trained or measured."""
    from flyweight.report.build import rebuild

    files = rebuild(path, out or (path if path.is_dir() else path.parent))
    print(json.dumps({"html": str(files.html), "json": str(files.json)}) if as_json else files.html)
