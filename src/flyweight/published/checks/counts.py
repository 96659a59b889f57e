"""Parameters, multiply-accumulates and FLOPs against what is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flyweight.published.checks.groups import grouped
from flyweight.published.count import NetCount, another_net, count, count_built
from flyweight.published.finding import Finding, Level, finding
from flyweight.published.numbers import SLACK, Number
from flyweight.published.table import Row

# Counters differ in what they call a multiply-accumulate (biases, activations, pooling, normalisation): timm's figures
# for small networks lie up to 4 % above convolutions and matrix products alone. A factor of two is far outside.
MACS_SLACK = 0.05
SMALL_INPUT = 64  # px: up to here a stem made for 224 px is often changed, and the table seldom says so


def params_match(row: Row) -> Iterator[Finding]:
    """The claimed parameters are the network's, with the head of its classes."""
    for column, unit in (("params", 1.0), ("params_m", 1e6)):
        claimed = row.number(column)
        if claimed is not None:
            yield from _params(row, column, unit, claimed, count(row))


def _params(row: Row, column: str, unit: float, claimed: Number, net: NetCount) -> Iterator[Finding]:
    shipped = any(claimed.agrees(value / unit) for value in (net.merged_params, net.folded_params))
    if shipped:
        return
    counted = _shown(net.params, unit)
    if claimed.agrees(net.params / unit):
        # A checkpoint holds its branches; whoever reports a deployed network should merge them.
        if net.branched and not row.fixed:
            yield finding(
                "unsupported", "params_match", row, column, _shown(net.folded_params, unit),
                "this is the training graph with its branches un-fused; the network that is deployed has them merged",
                f"write {_shown(net.folded_params, unit)} for the deployed network, or say 'training graph'",
            )  # fmt: skip
        return
    why = _why(row, unit, claimed, net)
    level: Level = "wrong" if row.states_classes else "unsupported"
    assumed = "" if row.states_classes else " (the table gives no number of classes)"
    yield finding(
        level, "params_match", row, column, counted,
        f"{row.model} with {row.num_classes:,} classes{assumed} has {net.params:,} parameters; {why}",
        f"write {counted}",
    )  # fmt: skip


def _why(row: Row, unit: float, claimed: Number, net: NetCount) -> str:
    meant = [f"{text} ({value:,})" for text, value in net.meant() if claimed.prints(value / unit)]
    # Where no reading has exactly these digits, the plainest of those that come near.
    meant = meant or [f"{text} ({value:,})" for text, value in net.meant() if claimed.agrees(value / unit)][:1]
    if meant:
        return f"the claim is the count with {', or with '.join(meant[:2])}"
    other = another_net(row, claimed.value * unit, claimed.half * unit + SLACK * claimed.value * unit)
    if other:
        return f"the claim is the count of another network, {other[0]} ({other[1]:,})"
    return f"no head, fusion or similar network explains the claim ({claimed.value * unit / net.params:.2f} times)"


def macs_match(row: Row) -> Iterator[Finding]:
    """The claimed multiply-accumulates are the network's at this input size."""
    claimed = row.number("macs_g")
    if claimed is not None:
        yield from _operations(row, "macs_g", claimed, count(row), 1, "GMACs")


def flops_match(row: Row) -> Iterator[Finding]:
    """The claimed FLOPs are twice the multiply-accumulates; those that equal them are `macs_called_flops`."""
    claimed = row.number("flops_g")
    if claimed is not None and not _called(row, claimed):
        yield from (
            Finding(**{**found.to_json(), "check": "flops_match"})
            for found in _operations(row, "flops_g", claimed, count(row), 2, "GFLOPs")
        )


def _operations(row: Row, column: str, claimed: Number, net: NetCount, times: int, unit: str) -> Iterator[Finding]:
    if claimed.agrees(times * net.merged_macs / 1e9, MACS_SLACK):
        return
    shipped = f"{times * net.merged_macs / 1e9:.3g}"
    side = f"{row.image_size} × {row.image_size} px"
    if claimed.agrees(times * net.macs / 1e9, MACS_SLACK):
        if not row.fixed:
            yield finding(
                "unsupported", "macs_match", row, column, shipped,
                f"this is the training graph with its branches un-fused; merged it needs {shipped} {unit} at {side}",
                f"write {shipped} for the deployed network, or say 'training graph'",
            )  # fmt: skip
        return
    yield finding(
        _level(row), "macs_match", row, column, shipped,
        f"{row.model} needs {shipped} {unit} at {side}{_doubt(row)}; no counting convention reaches the claim",
        f"write {shipped}",
    )  # fmt: skip


def macs_called_flops(row: Row) -> Iterator[Finding]:
    """What is called FLOPs is not the count of multiply-accumulates, each of which is two operations."""
    claimed = row.number("flops_g")
    if claimed is None or not _called(row, claimed):
        return
    net = count(row)
    merged = claimed.agrees(net.merged_macs / 1e9, MACS_SLACK)
    graph = "" if merged else " of the training graph, branches un-fused"
    counted = f"{2 * net.merged_macs / 1e9:.3g}"
    yield finding(
        _level(row), "macs_called_flops", row, "flops_g", counted,
        f"this is the count of multiply-accumulates{graph}{_doubt(row)}; each is two floating-point operations",
        f"write {counted} GFLOPs, or {net.merged_macs / 1e9:.3g} GMACs",
    )  # fmt: skip


def _doubt(row: Row) -> str:
    """Return why the input may not be what the claim was counted on; "" where it is certain."""
    if not row.number("image_size"):
        return f" (the table gives no input size; {row.image_size} px assumed)"
    if not row.text("layers") and row.image_size <= SMALL_INPUT:
        return " with its own stem (many authors change it for small images)"
    return ""


def _level(row: Row) -> Level:
    return "unsupported" if _doubt(row) else "wrong"


def _called(row: Row, claimed: Number) -> bool:
    net = count(row)
    if any(claimed.agrees(2 * macs / 1e9, MACS_SLACK) for macs in (net.macs, net.merged_macs)):
        return False
    return any(claimed.agrees(macs / 1e9, MACS_SLACK) for macs in (net.macs, net.merged_macs))


def built_is_claimed(rows: Sequence[Row]) -> Iterator[Finding]:
    """The code builds the network that the table names."""
    told = [row for row in rows if row.text("built")]
    for group in grouped(
        told, lambda row: (row.table, row.model, row.text("layers"), row.text("built"), row.num_classes)
    ):
        yield from _built(group[0])


def _built(row: Row) -> Iterator[Finding]:
    if row.text("built") == row.text("layers" if row.text("layers") else "model"):
        return
    named, built = count(row), count_built(row)
    if named.params == built.params and named.macs == built.macs:
        return
    yield finding(
        "wrong", "built_is_claimed", row, "built", f"{built.params:,} parameters",
        f"the published code builds {row.text('built')} ({built.params:,} parameters, {_macs(built)}), not what the "
        f"table names ({named.params:,}, {_macs(named)}): accuracy and cost are of different networks",
        f"name {row.text('built')}, with {built.params:,} parameters", claimed=row.model,
    )  # fmt: skip


def _macs(net: NetCount) -> str:
    return f"{net.macs / 1e9:.3g} GMACs" if net.macs >= 1e8 else f"{net.macs / 1e6:.3g} MMACs"


def _shown(value: int, unit: float) -> str:
    return f"{value:,}" if unit == 1 else f"{value / unit:.2f}" if value >= 1e5 else f"{value / unit:.4f}"
