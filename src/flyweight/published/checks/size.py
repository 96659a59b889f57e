"""Bytes on disk against parameters."""

from __future__ import annotations

from collections.abc import Iterator

from flyweight.published.count import count
from flyweight.published.finding import Finding, finding
from flyweight.published.table import Row

BYTES = {4: "float32", 2: "float16", 1: "int8"}
# What a file holds beside the weights: names, shapes and the graph.
ENVELOPE_SHARE, ENVELOPE = 0.01, 16_000
_MEANT = {12: "weights and two optimizer slots", 8: "weights and one optimizer slot, or float64"}


def size_matches_params(row: Row) -> Iterator[Finding]:
    """The claimed size holds the parameters in float32, float16 or int8, and little else."""
    net = count(row) if row.number("size_mb") or row.number("size_bytes") else None
    if net is None:
        return
    for column, units in (("size_mb", (1e6, 2.0**20)), ("size_bytes", (1.0,))):
        claimed = row.number(column)
        if claimed is None:
            continue
        if any(
            _fits(claimed.value * unit, claimed.half * unit, params, net.buffers, width)
            for unit in units for width in BYTES for params in (net.params, net.folded_params)
        ):  # fmt: skip
            continue
        if claimed.value * units[-1] < 0.99 * net.folded_params:
            yield _below_a_byte(row, column, net.folded_params)
            continue
        true = 4 * net.params
        slots = [
            b for b in _MEANT for unit in units if abs(claimed.value * unit - b * net.params) <= claimed.half * unit
        ]
        why = f"it fits {slots[0]} bytes each: {_MEANT[slots[0]]}" if slots else (
            f"it is {claimed.value * units[-1] / net.params:.1f} bytes each, which no number format takes"
        )  # fmt: skip
        yield finding(
            "wrong", "size_matches_params", row, column, f"{true / units[0]:,.4g}",
            f"{net.params:,} parameters take {true:,} bytes in float32 and {net.params:,} in int8; {why}",
            f"write {true / units[0]:,.4g} (float32), the size of the file that is shipped and not of a training file",
        )  # fmt: skip


def _below_a_byte(row: Row, column: str, params: int) -> Finding:
    int8 = f"{params / 1e6:,.4g}" if column == "size_mb" else f"{params:,}"
    return finding(
        "unsupported", "size_matches_params", row, column, int8,
        f"less than one byte for each of {params:,} parameters: pruned, packed below 8 bits or compressed, or wrong",
        "say how the weights are stored",
    )  # fmt: skip


def _fits(size: float, half: float, params: int, buffers: int, width: int) -> bool:
    least = 0.999 * width * params - half
    # Running statistics stay float32 in most files.
    most = (1 + ENVELOPE_SHARE) * (width * params + 4 * buffers) + ENVELOPE + half
    return least <= size <= most
