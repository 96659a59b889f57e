"""`flyweight data check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flyweight.cli.progress import Bars

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Check a data set before training on it.")
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


@app.callback()
def _group() -> None:
    """Check a data set before training on it."""


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A folder, CSV, archive, .npz, or mnist:DIR, cifar10:DIR, sample, ...")],
    group: Annotated[str | None, typer.Option(help="Column or pattern of what must stay on one side.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Write the names of unreadable images to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode every image and report everything wrong at once; exit 1 where something is an error."""
    from flyweight.data.audit import audit
    from flyweight.data.sources import load_data
    from flyweight.files import write_text

    dataset = load_data(path, group=group)
    with Bars(quiet=as_json) as bars:
        found = audit(dataset, progress=lambda done, total: bars.update("look", done, total, "looking at images"))
    if quarantine is not None:
        write_text(quarantine, "".join(f"{name}\n" for name in found.unreadable))
    if as_json:
        print(json.dumps({**found.to_json(), "fingerprint": dataset.fingerprint()}, ensure_ascii=False))
    else:
        _show(found, Console())
        print(f'next    flyweight fit {path} --budget "latency_p90<5ms,size<1MB"')
    raise typer.Exit(0 if found.ok else 1)


def _show(found: object, console: Console) -> None:
    from flyweight.data.audit import Audit

    assert isinstance(found, Audit)
    parts = ", ".join(f"{count:,} {name or 'undivided'}" for name, count in found.parts.items())
    console.print(f"{found.name}: {found.images:,} images, {len(found.classes)} classes ({parts})", highlight=False)
    if not found.findings:
        console.print("nothing to report", style="green")
        return
    table = Table("", "what", "count", "for example", "what it means", show_lines=True)
    for finding in found.findings:
        table.add_row(
            finding.severity, finding.what, f"{finding.count:,}", "\n".join(finding.examples[:3]), finding.meaning,
            style=STYLES[finding.severity],
        )  # fmt: skip
    console.print(table)
