"""`flyweight models`: the catalogue and what each network costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flyweight.cli.progress import Bars
from flyweight.errors import BudgetError, MissingExtraError
from flyweight.measure.budget import MEASURED, Budget, show
from flyweight.models.zoo import ZOO, Entry, check_size, find, names

if TYPE_CHECKING:
    from flyweight.export.counted import Counted
    from flyweight.models.card import Card

_COLUMNS = {"parameters": "params", "MACs": "macs", "peak activation": "peak_activation", "file": "size"}
_SHORT = {"params": 7, "MACs": 7, "peak act.": 9, "file": 7}  # headings and widths of a list that fits 80 columns


def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'tiny_*'.")] = "*",
    image_size: Annotated[int, typer.Option(help="Side of the input, px; 28 or more.", min=1)] = 32,
    channels: Annotated[int, typer.Option(help="Channels of the input.", min=1)] = 3,
    classes: Annotated[int, typer.Option(help="Classes of the head.", min=2)] = 10,
    budget: Annotated[
        str, typer.Option(help="Leave out what breaks it: params<100k, macs<10M, size<1MB, or a named one.")
    ] = "",
    only_names: Annotated[bool, typer.Option("--names", help="Count nothing: names, families, sources.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the networks of the catalogue and their counted cost with this input and head; of one, print its card.

    Costs are counted from the file each network would ship, which is exported once and remembered. The first time, a
    tiny network takes about a second and a large one several, all of them minutes; rows are printed as they are
    counted. --names lists at once. What is printed here: docs/models.md.
    """
    limits = _counted_budget(budget)
    found = [ZOO[name] for name in names(pattern)]
    entries = [ZOO[pattern]] if pattern in ZOO else found or [find(pattern)]
    if only_names:
        _print_names(entries, budget, as_json)
        return
    for entry in entries:
        check_size(entry.name, image_size)
    seen = _Smallest(limits)
    shown = _Lines(entries, f"{channels} × {image_size} × {image_size} px, {classes} classes; counted, not measured")
    rows = []
    with Bars() as bars:
        for entry, cost in _rows(entries, image_size, channels, classes, seen, bars):
            rows.append((entry, cost))
            if len(entries) > 1 and not as_json:
                shown.add(entry, cost)
    card = _card(entries[0], image_size, channels, classes) if len(entries) == 1 and rows else None
    if as_json:
        more = {} if card is None else card.to_json()
        print(json.dumps([{**_json(*row), **more} for row in rows], indent=2))
    elif card is not None:
        _print_card(card, rows[0][1])
    if not rows:
        print(seen.none_of(entries), file=sys.stderr if as_json else None)


def _counted_budget(text: str) -> Budget:
    budget = Budget.parse(text)
    measured = sorted({limit.metric for limit in budget.limits} & MEASURED)
    if measured:
        raise BudgetError(
            f"{', '.join(measured)} in --budget {text!r} is measured, and this list only counts",
            do="limit params, macs, peak_activation or size here; `flyweight fit` times the candidates",
        )
    return budget


class _Smallest:
    """A budget, and the smallest value seen of each metric that it limits."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.least: dict[str, tuple[float, str]] = {}

    def keeps(self, entry: Entry, values: dict[str, float | None]) -> bool:
        """Note the values and say whether they break no limit."""
        checks = self.budget.check(values)
        for check in checks:
            if check.value is not None:
                self.least[check.metric] = min(
                    self.least.get(check.metric, (float("inf"), "")), (check.value, entry.name)
                )
        return all(check.status != "violated" for check in checks)

    def none_of(self, entries: Sequence[Entry]) -> str:
        """Return in one sentence that nothing was kept, and what came nearest."""
        who = f"none of {len(entries)} networks meets" if len(entries) > 1 else f"{entries[0].name} does not meet"
        least = [f"{metric} {show(metric, value)} ({name})" for metric, (value, name) in self.least.items()]
        return f"{who} {self.budget.text!r}; the smallest is {', '.join(least)}"


def _rows(
    entries: Sequence[Entry], image_size: int, channels: int, classes: int, seen: _Smallest, bars: Bars
) -> Iterator[tuple[Entry, Counted]]:
    try:
        from flyweight.export.counted import counted, counted_params, remembered
        from flyweight.models.architecture import Architecture
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("torch", "timm", "torchvision", "onnxscript"):
            raise
        raise MissingExtraError(
            "counting what a network costs needs torch, which is not installed", do='pip install "flyweight[train]"'
        ) from error
    for number, entry in enumerate(entries):
        bars.update("count", number, len(entries), f"counting {entry.name}")
        architecture = Architecture(entry.name, classes, channels, image_size)
        found = remembered(architecture)
        limited = found is None and seen.budget.limits_metric("params")
        if limited and not seen.keeps(entry, {"params": float(counted_params(architecture))}):
            continue  # found without exporting it
        found = found or counted(architecture)
        if seen.keeps(entry, found.values()):
            yield entry, found


class _Lines:
    """A table whose rows are printed as they come, beside a progress bar."""

    def __init__(self, entries: Sequence[Entry], title: str) -> None:
        self.width = max(len(entry.name) for entry in entries)
        self.title = title
        self.out = sys.stdout  # a bar takes prints to its own stream, which is not that of a pipe

    def add(self, entry: Entry, found: Counted) -> None:
        """Print one row, before the first one the headings."""
        if self.title:
            self._print(self.title)
            self._print(self._line("name", _SHORT, "library"))
            self.title = ""
        values = [show(metric, found.values()[metric] or 0.0) for metric in _COLUMNS.values()]
        self._print(self._line(entry.name, values, entry.library))

    def _line(self, name: str, cells: Iterable[str], library: str) -> str:
        columns = (f"{cell:>{width}}" for cell, width in zip(cells, _SHORT.values(), strict=True))
        return "  ".join((f"{name:<{self.width}}", *columns, library))

    def _print(self, line: str) -> None:
        print(line, file=None if self.out.isatty() else self.out, flush=True)


def _print_names(entries: Sequence[Entry], budget: str, as_json: bool) -> None:
    if budget:
        raise BudgetError(f"--names counts nothing to hold against --budget {budget!r}", do="leave out one of them")
    facts = [
        {key: getattr(entry, key) for key in ("name", "family", "library", "paper", "licence")} for entry in entries
    ]
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    widths = {key: max(len(fact[key]) for fact in facts) for key in ("name", "family", "library")}
    for fact in facts:
        print("  ".join(f"{fact[key]:<{width}}" for key, width in widths.items()).rstrip())


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
