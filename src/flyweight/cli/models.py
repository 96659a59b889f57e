"""`flyweight models`: the catalogue and what each network costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flyweight.errors import BudgetError, MissingExtraError
from flyweight.measure.budget import MEASURED, Budget, show
from flyweight.models.zoo import ZOO, Entry, find, names

if TYPE_CHECKING:
    from flyweight.export.counted import Counted
    from flyweight.models.card import Card

_COLUMNS = {"parameters": "params", "MACs": "macs", "peak activation": "peak_activation", "file": "size"}


def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'tiny_*'.")] = "*",
    image_size: Annotated[int, typer.Option(help="Side of the input, px.", min=1)] = 32,
    channels: Annotated[int, typer.Option(help="Channels of the input.", min=1)] = 3,
    classes: Annotated[int, typer.Option(help="Classes of the head.", min=2)] = 10,
    budget: Annotated[
        str, typer.Option(help="Leave out what breaks it: params<100k, macs<10M, size<1MB, or a named one.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the networks of the catalogue and their counted cost with this input and head; of one, print its card.

    Costs are counted from the file each network would ship, which is exported once and remembered: the first call
    takes a second or two for each network.
    """
    limits = _counted_budget(budget)
    found = [ZOO[name] for name in names(pattern)]
    entries = [ZOO[pattern]] if pattern in ZOO else found or [find(pattern)]
    rows = list(_rows(entries, image_size, channels, classes, limits))
    card = _card(entries[0], image_size, channels, classes) if len(entries) == 1 and rows else None
    if as_json:
        more = {} if card is None else card.to_json()
        print(json.dumps([{**_json(*row), **more} for row in rows], indent=2))
    elif card is not None:
        _print_card(card, rows[0][1])
    else:
        Console().print(_table(rows, image_size, channels, classes))


def _counted_budget(text: str) -> Budget:
    budget = Budget.parse(text)
    measured = sorted({limit.metric for limit in budget.limits} & MEASURED)
    if measured:
        raise BudgetError(
            f"{', '.join(measured)} in --budget {text!r} is measured, and this list only counts",
            do="limit params, macs, peak_activation or size here; `flyweight fit` times the candidates",
        )
    return budget


def _rows(
    entries: Sequence[Entry], image_size: int, channels: int, classes: int, budget: Budget
) -> Iterator[tuple[Entry, Counted]]:
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
    for number, entry in enumerate(entries, 1):
        if status:
            status.start()
            status.update(f"counting {entry.name} ({number} of {len(entries)})")
        architecture = Architecture(entry.name, classes, channels, image_size)
        if budget.limits_metric("params") and not _keeps(budget, {"params": float(counted_params(architecture))}):
            continue  # found without exporting it
        found = counted(architecture)
        if _keeps(budget, found.values()):
            yield entry, found
    if status:
        status.stop()


def _keeps(budget: Budget, values: dict[str, float | None]) -> bool:
    return all(check.status != "violated" for check in budget.check(values))


def _card(entry: Entry, image_size: int, channels: int, classes: int) -> Card:
    from flyweight.models.architecture import Architecture
    from flyweight.models.card import card_of

    return card_of(Architecture(entry.name, classes, channels, image_size))


def _json(entry: Entry, found: Counted) -> dict[str, Any]:
    return {
        "name": entry.name,
        "family": entry.family,
        "library": entry.library,
        "paper": entry.paper,
        "licence": entry.licence,
        "params": found.cost.params,
        "macs": found.cost.macs,
        "peak_activation_bytes": found.cost.peak_activation_bytes,
        "size_bytes": found.size_bytes,
        "unsupported": list(found.cost.unsupported),
    }


def _print_card(card: Card, found: Counted) -> None:
    table = Table(show_header=False, box=None, title=f"{card.name}: {card.family}", title_justify="left")
    rows = {heading: show(metric, found.values()[metric] or 0.0) for heading, metric in _COLUMNS.items()}
    rows |= {"parameters": f"{found.cost.params:,} folded; {card.params_as_built:,} as built"}
    rows |= {"paper": card.paper, "code": f"{card.library}, {card.licence}", "input": card.sizes}
    rows |= {"folding": card.folding}
    rows |= {"weights": ", ".join(card.pretrained) or "none published that timm or torchvision know"}
    for heading, text in rows.items():
        table.add_row(heading, text)
    Console().print(table)
    print("Parameters, MACs, bytes: counted, not measured.")


def _table(rows: Sequence[tuple[Entry, Counted]], image_size: int, channels: int, classes: int) -> Table:
    table = Table(title=f"{channels} × {image_size} × {image_size} px, {classes} classes; counted, not measured")
    table.add_column("name", no_wrap=True)
    for heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("library")
    for entry, found in rows:
        table.add_row(
            entry.name, *(show(metric, found.values()[metric] or 0.0) for metric in _COLUMNS.values()), entry.library
        )
    return table
