"""`flyweight models`: the catalogue and what each network costs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flyweight.errors import MissingExtraError, ModelError
from flyweight.models.zoo import ZOO, Entry, find, names

if TYPE_CHECKING:
    from flyweight.models.cost import Cost

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'tiny_*'.")] = "*",
    image_size: Annotated[int, typer.Option(help="Side of the input, px.", min=1)] = 32,
    channels: Annotated[int, typer.Option(help="Channels of the input.", min=1)] = 3,
    classes: Annotated[int, typer.Option(help="Classes of the head.", min=2)] = 10,
    max_params: Annotated[str | None, typer.Option(help="Leave out larger ones, e.g. 20k or 1.5M.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the networks of the catalogue and their counted cost with this input and head.

    Costs are counted from the graph each network would ship, which is exported once and remembered: the first call
    takes a second or two for each network.
    """
    limit = None if max_params is None else parse_count(max_params)
    entries = _chosen(pattern)
    rows = list(_rows(entries, image_size, channels, classes, limit))
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(_table(rows, image_size, channels, classes))


def parse_count(text: str) -> float:
    """Return the number that e.g. `20k` or `1.5M` means.

    Raises:
        ModelError: Not a number with an optional k or M.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmM]?)\s*", text)
    if match is None:
        raise ModelError(f"--max-params {text!r} is not a number", do="write it like 20000, 20k or 1.5M")
    return float(match[1]) * _UNITS[match[2].lower()]


def _chosen(pattern: str) -> list[Entry]:
    found = [ZOO[name] for name in names(pattern)]
    return found or [find(pattern)]


def _rows(
    entries: Sequence[Entry], image_size: int, channels: int, classes: int, limit: float | None
) -> Iterator[dict[str, Any]]:
    try:
        from flyweight.export.counted import counted, counted_params
        from flyweight.models.architecture import Architecture
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("torch", "timm", "torchvision", "onnxscript"):
            raise
        raise MissingExtraError(
            "counting what a network costs needs torch, which is not installed", do='pip install "flyweight[train]"'
        ) from error
    status = Console(stderr=True).status("counting") if sys.stderr.isatty() else None
    for entry in entries:
        if status:
            status.start()
            status.update(f"counting {entry.name}")
        architecture = Architecture(entry.name, classes, channels, image_size)
        if limit is None or counted_params(architecture) <= limit:
            yield _row(entry, counted(architecture))
    if status:
        status.stop()


def _row(entry: Entry, cost: Cost) -> dict[str, Any]:
    return {
        "name": entry.name,
        "family": entry.family,
        "library": entry.library,
        "paper": entry.paper,
        "licence": entry.licence,
        "pretrained": entry.pretrained,
        "params": cost.params,
        "macs": cost.macs,
        "peak_activation_bytes": cost.peak_activation_bytes,
        "unsupported": list(cost.unsupported),
    }


def _table(rows: Sequence[dict[str, Any]], image_size: int, channels: int, classes: int) -> Table:
    table = Table(title=f"{channels} × {image_size} × {image_size} px, {classes} classes; counted, not measured")
    table.add_column("name", no_wrap=True)
    for heading in ("parameters", "MACs", "peak activation bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("library")
    for row in rows:
        numbers = [f"{row[key]:,}" for key in ("params", "macs", "peak_activation_bytes")]
        table.add_row(row["name"], *numbers, row["library"])
    return table
