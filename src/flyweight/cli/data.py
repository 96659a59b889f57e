"""`flyweight data check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flyweight.cli.progress import Bars
from flyweight.errors import DataError

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


@app.command()
def subset(
    path: Annotated[str, typer.Argument(help="A folder, CSV, archive, .npz, or mnist:DIR, cifar10:DIR, sample, ...")],
    out: Annotated[Path, typer.Option(help="File for the names of the images that are left out, one a line.")],
    per_class: Annotated[int | None, typer.Option(help="Keep so many training images a class.", min=1)] = None,
    fraction: Annotated[float | None, typer.Option(help="Keep this share of the training images.")] = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern of what must stay on one side.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the list that makes a smaller data set of this one, equal over classes: `--quarantine` of other commands.

    By content hash: fewer images are inside more, and copies of the data give the same ones. The test part stays whole,
    an official one or the one that data.test_fraction=0.15 and data.split_seed=0 seal.
    """
    from flyweight.data.sources import load_data
    from flyweight.data.subset import left_out
    from flyweight.files import write_text

    if per_class is None and fraction is None:
        raise DataError("nothing says how small the subset is", do="give --per-class N or --fraction SHARE")
    dataset = load_data(path, group=group)
    names = left_out(dataset, per_class=per_class, fraction=fraction)
    write_text(out, "".join(f"{name}\n" for name in names))
    if as_json:
        print(json.dumps({"kept": len(dataset) - len(names), "left_out": len(names), "list": str(out)}))
        return
    print(f"{len(dataset) - len(names):,} images kept, {len(names):,} named in {out}")
    print(f"next    flyweight train {path} --quarantine {out}")


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
