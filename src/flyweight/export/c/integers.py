"""Operators between DequantizeLinear and QuantizeLinear, in integers: int8 weights, uint8 levels, int32 sums.

A level stands for `scale * (level - zero)`. A layer's answer, in levels of its output, is its integer sum times
`input scale * weight scale / output scale`, which is a whole number of 31 bits and a shift here. Tensors of int8 are
kept as uint8, 128 higher. Functions of one number become tables of 256.
Source: B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference" (2018), section 2.2. Changed: halves are rounded to even, as QuantizeLinear says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.export.c import moves
from flyweight.export.c.error import CannotExpress
from flyweight.export.c.floats import LAYERS, OPERATIONS, arranged, is_pixels, repeats, weights_of
from flyweight.export.c.graph import Array, Graph, attributes
from flyweight.export.c.rule import CLAMPS, Rule, clamp_range, clamped
from flyweight.export.c.unary import UNARY
from flyweight.export.c.values import Levels, Program, Value, reshape
from flyweight.export.c.windows import pool_window, reduces_pictures

POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"}
Range = tuple[int, int]


def rule(graph: Graph, name: str) -> Rule | None:
    """Return how a tensor of integers is made, or a float of integers; None where nothing is quantized."""
    node = graph.makers[name]
    if node.op_type == "QuantizeLinear":
        levels = levels_of(graph, name)
        return _fused(graph, node.input[0], levels) or Rule((node.input[0],), partial(_quantize, levels=levels))
    if node.op_type == "DequantizeLinear":
        return Rule((node.input[0],), _dequantize)
    base, bounds = clamped(graph, name)
    maker = graph.maker(base)
    if maker is not None and maker.op_type in LAYERS:
        return _layer_to_floats(graph, base, bounds)
    return None


def levels_of(graph: Graph, name: str) -> Levels:
    """Return what the levels of a QuantizeLinear's output, or of a DequantizeLinear's input, stand for."""
    node = graph.makers[name]
    scale = graph.constant(node.input[1])
    zero = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
        raise CannotExpress(node.op_type, f"giving {name!r}: one scale and an 8-bit zero point per tensor are known")
    return Levels(float(scale.item()), int(zero.item()) + (128 if zero.dtype == np.int8 else 0))


def viewed(graph: Graph, name: str) -> tuple[str, Levels] | None:
    """Return the integers behind a tensor of floats, and their levels; None where it has none."""
    node = graph.maker(name)
    if node is None:
        return None
    if node.op_type == "DequantizeLinear" and node.input[0] not in graph.constants:
        return node.input[0], levels_of(graph, name)
    return (node.input[0], Levels(1.0, 0)) if is_pixels(graph, name) else None


def fixed(multiplier: Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return (m, shift) with m / 2**shift next to each multiplier, m of 31 bits."""
    fraction, exponent = np.frexp(np.asarray(multiplier, np.float64))
    whole = np.rint(fraction * 2.0**31).astype(np.int64)
    shift = 31 - exponent.astype(np.int64)
    too_large = whole == 1 << 31
    whole, shift = np.where(too_large, whole >> 1, whole), np.where(too_large, shift - 1, shift)
    least = np.minimum(shift, 62)
    whole = whole >> np.minimum(shift - least, 62)
    if (least < 1).any():
        raise CannotExpress("QuantizeLinear", "whose scale is a billionth of what it quantizes")
    return whole.astype(np.int32), least.astype(np.uint8)


def _fused(graph: Graph, name: str, levels: Levels) -> Rule | None:
    """Return how the levels of a float tensor are computed without the floats; None where they cannot be."""
    if graph.uses[name] > 1:
        return None
    base, bounds = clamped(graph, name)
    node, ends = graph.maker(base), _ends(bounds, levels)
    if node is None:
        return None
    if node.op_type in LAYERS:
        return _layer(graph, base, levels, ends)
    views = [viewed(graph, source) for source in node.input]
    if node.op_type in {"Add", "Sub", "Mul"} and None not in views:
        return _binary(graph, base, levels, ends)
    if node.op_type in POOLS and views[0] is not None:
        return _pool(graph, base, levels, ends)
    if node.op_type == "Concat" and None not in views:
        sources = tuple(source for source, _ in filter(None, views))
        axis = attributes(node)["axis"]
        return Rule(sources, partial(_join, axis=axis, shape=graph.shapes[base], levels=levels, ends=ends))
    moved = None if views[0] is None else moves.rule(graph, base)
    if moved is not None and views[0] is not None:
        return Rule((views[0][0],), partial(_moved, moved=moved, levels=levels, ends=ends))
    return _function(graph, name, levels)


def _ends(bounds: tuple[float, float], levels: Levels) -> Range:
    low, high = (int(_levels(end, levels)) for end in bounds)
    return low, high


def _levels(values: Any, levels: Levels) -> NDArray[np.uint8]:
    """Return what QuantizeLinear makes of floats."""
    with np.errstate(over="ignore"):  # what lies beyond float32 lies beyond the levels too
        found = np.rint(np.asarray(values, np.float32) / np.float32(levels.scale)) + levels.zero
    return np.asarray(np.clip(found, 0, 255), np.uint8)


def _values(levels: Levels) -> NDArray[np.float32]:
    """Return what each of the 256 levels stands for."""
    return ((np.arange(256) - levels.zero).astype(np.float32) * np.float32(levels.scale)).astype(np.float32)


def _integers(graph: Graph, name: str) -> Array | None:
    node = graph.maker(name)
    if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in graph.constants:
        return graph.constant(name)
    levels, _, zero = graph.levels(name)
    if levels.dtype == np.int32:
        return levels
    centred = levels.astype(np.int16) - (zero.astype(np.int16) if zero.ndim == 0 else np.int16(zero.ravel()[0]))
    same = zero.ndim == 0 or len(set(zero.ravel().tolist())) == 1
    return centred.astype(np.int8) if same and np.abs(centred).max(initial=0) <= 127 + (centred.min() == -128) else None


def _integer_layer(graph: Graph, name: str) -> tuple[str, Levels, Array, str, dict[str, Any]] | None:
    """Return (input, its levels, scale of the sums per channel, kernel, fields); None where something is float."""
    node = graph.makers[name]
    view, maker = viewed(graph, node.input[0]), graph.maker(node.input[1])
    if view is None or maker is None or maker.op_type != "DequantizeLinear":
        return None
    found = weights_of(graph, name, partial(_integers, graph))
    if found is None or found[0].dtype != np.int8:
        return None
    weight, bias, given = found
    scale = graph.levels(node.input[1])[1].astype(np.float64).ravel()
    if scale.size not in (1, len(weight)):
        return None
    units = np.broadcast_to(scale, len(weight)) * view[1].scale
    if bias is not None and bias.dtype != np.int32:
        bias = np.rint(bias.astype(np.float64) / units)
    largest = 255 * np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)) + (0 if bias is None else np.abs(bias))
    if (largest >= 2**31).any():
        return None
    kernel, fields = arranged(weight, given)
    fields |= {"bias": None if bias is None else bias.astype(np.int32), "in_zero": view[1].zero}
    return view[0], view[1], units, kernel, fields


def _layer(graph: Graph, name: str, levels: Levels, ends: Range) -> Rule | None:
    found = _integer_layer(graph, name)
    if found is None:
        return None
    source, _, units, kernel, fields = found
    multiplier, shift = fixed(units / levels.scale)
    fields |= {"multiplier": multiplier, "shift": shift, **_output(levels, ends)}
    return Rule((source,), partial(_run, kernel=f"{kernel}_u8", fields=fields, shape=graph.shapes[name], levels=levels))


def _layer_to_floats(graph: Graph, name: str, bounds: tuple[float, float]) -> Rule | None:
    found = _integer_layer(graph, name)
    if found is None or found[3] != "conv":
        return None
    source, _, units, _, fields = found
    fields |= {"scale": units.astype(np.float32), "least": bounds[0], "most": bounds[1]}
    return Rule((source,), partial(_run, kernel="conv_u8_f32", fields=fields, shape=graph.shapes[name], levels=None))


def _output(levels: Levels, ends: Range) -> dict[str, int]:
    return {"out_zero": levels.zero, "low": ends[0], "high": ends[1]}


def _run(
    values: Sequence[Value],
    program: Program,
    kernel: str,
    fields: Mapping[str, Any],
    shape: tuple[int, ...],
    levels: Levels | None,
) -> Value:
    return program.add(kernel, [program.plain(values[0])], shape, fields, levels=levels)


def _binary(graph: Graph, name: str, levels: Levels, ends: Range) -> Rule | None:
    node, shape = graph.makers[name], graph.shapes[name]
    a, b = node.input
    if node.op_type != "Sub" and graph.shapes[a] != shape:
        a, b = b, a
    period = repeats(graph.shapes[b], shape)
    if graph.shapes[a] != shape or period is None:
        return None
    (first, ours), (second, theirs) = filter(None, (viewed(graph, a), viewed(graph, b)))
    fields: dict[str, Any] = {"a_zero": ours.zero, "b_zero": theirs.zero, **_output(levels, ends)}
    if node.op_type == "Mul":
        multiplier, shift = fixed(np.array(ours.scale * theirs.scale / levels.scale))
        fields |= {"multiplier": int(multiplier), "shift": int(shift), "period": period}
    else:
        scales = np.array([ours.scale, theirs.scale]) / levels.scale
        whole, shift = fixed(scales.max())
        signs = np.array([1, -1 if node.op_type == "Sub" else 1])
        both = np.rint(scales * 2.0 ** int(shift)).astype(np.int64) * signs
        # The larger of the two as `fixed` has it: rounding here could reach 2**31.
        both[scales.argmax()] = int(whole) * signs[scales.argmax()]
        fields |= {"a_multiplier": int(both[0]), "b_multiplier": int(both[1]), "shift": int(shift)}
        fields = {"sum": fields, "period": period}
    kernel = "mul_u8" if node.op_type == "Mul" else "add_u8"
    return Rule((first, second), partial(_operate, kernel=kernel, fields=fields, levels=levels))


def _operate(
    values: Sequence[Value], program: Program, kernel: str, fields: Mapping[str, Any], levels: Levels
) -> Value:
    given = [program.plain(value) for value in values]
    fields = {**fields, "count": given[0].storage.count}
    return program.add(kernel, given, given[0].shape, fields, levels=levels, elementwise=True)


def _pool(graph: Graph, name: str, levels: Levels, ends: Range) -> Rule | None:
    node = graph.makers[name]
    if node.op_type == "ReduceMean" and not reduces_pictures(graph, name):
        return None
    view = viewed(graph, node.input[0])
    assert view is not None, "asked for pools of integers"
    source, ours = view
    fields = pool_window(graph, name)
    if node.op_type == "MaxPool":
        return Rule((source,), partial(_greatest, fields=fields, shape=graph.shapes[name], levels=levels, ends=ends))
    largest = fields["kh"] * fields["kw"]
    counts = np.array([largest]) if fields["padding_counts"] else np.arange(1, largest + 1)
    multiplier, shift = fixed(ours.scale / levels.scale / counts)
    fields |= {"multiplier": multiplier, "shift": shift, "in_zero": ours.zero, **_output(levels, ends)}
    return Rule((source,), partial(_mean, fields=fields, shape=graph.shapes[name], levels=levels))


def _mean(
    values: Sequence[Value], program: Program, fields: Mapping[str, Any], shape: tuple[int, ...], levels: Levels
) -> Value:
    pooled = (1, fields["c"], fields["out_h"], fields["out_w"])
    return reshape(_run(values, program, "avgpool_u8", fields, pooled, levels), shape, program)


def _greatest(
    values: Sequence[Value],
    program: Program,
    fields: Mapping[str, Any],
    shape: tuple[int, ...],
    levels: Levels,
    ends: Range,
) -> Value:
    given = program.plain(values[0])
    found = program.add("maxpool_u8", [given], shape, fields, levels=given.levels)
    return _in_levels(found, program, levels, ends)


def _join(
    values: Sequence[Value], program: Program, axis: int, shape: tuple[int, ...], levels: Levels, ends: Range
) -> Value:
    return moves.join([_in_levels(value, program, levels, ends) for value in values], program, axis, shape)


def _moved(values: Sequence[Value], program: Program, moved: Rule, levels: Levels, ends: Range) -> Value:
    return _in_levels(moved.build(values, program), program, levels, ends)


def _in_levels(value: Value, program: Program, levels: Levels, ends: Range = (0, 255)) -> Value:
    assert value.levels is not None
    table = np.clip(_levels(_values(value.levels), levels), *ends).astype(np.uint8)
    return _looked_up([value], program, table=table, levels=levels)


def _looked_up(values: Sequence[Value], program: Program, table: NDArray[np.uint8], levels: Levels) -> Value:
    """Return the value through a table (256,) or one per channel (C, 256); as it is where they change nothing."""
    table = table.reshape(-1, 256)
    if (table == np.arange(256)).all():
        return replace(values[0], levels=levels)
    given = program.plain(values[0])
    fields = {"table": table.ravel(), "count": given.storage.count, "channels": len(table)}
    return program.add("lut_u8", [given], given.shape, fields, levels=levels, elementwise=True)


def _function(graph: Graph, name: str, levels: Levels) -> Rule | None:
    """Return a table, where a tensor is a function of one quantized tensor alone, element by element."""
    leaves: dict[str, None] = {}
    values = _evaluated(graph, name, leaves)
    if values is None or len(leaves) != 1:
        return None
    view = viewed(graph, next(iter(leaves)))
    assert view is not None
    table = _levels(values, levels).reshape(-1, 256)
    table = table[:1] if (table == table[0]).all() else table
    return Rule((view[0],), partial(_looked_up, table=table, levels=levels))


def _evaluated(graph: Graph, name: str, leaves: dict[str, None]) -> Array | None:
    """Return a tensor's values (1, 1 or C, 256, 1) for each level of the tensors it is made of; None if no function."""
    view, constant, node = viewed(graph, name), graph.constant(name), graph.maker(name)
    if view is not None:
        leaves[name] = None
        return _values(view[1]).reshape(1, 1, 256, 1)
    if constant is not None:
        each = constant.ndim == 4 and constant.size == constant.shape[1]
        return constant.reshape(1, 1, 1, 1) if constant.size == 1 else constant if each else None
    if node is None or node.op_type not in {*CLAMPS, *OPERATIONS, *UNARY}:
        return None
    given = [_evaluated(graph, source, leaves) for source in node.input[: 1 if node.op_type in CLAMPS else None]]
    known = [one for one in given if one is not None]
    if len(known) < len(given):
        return None
    if node.op_type in CLAMPS:
        low, high = clamp_range(graph, name)
        return np.asarray(np.clip(known[0], np.float32(low), np.float32(high)), np.float32)
    if node.op_type in UNARY:
        a, b = (np.float32(one) for one in UNARY[node.op_type].arguments(attributes(node)))
        return np.asarray(UNARY[node.op_type].numpy(known[0], a, b), np.float32)
    operation = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[OPERATIONS[node.op_type]]
    return np.asarray(operation(known[0], known[1]), np.float32)


def _quantize(values: Sequence[Value], program: Program, levels: Levels) -> Value:
    given = program.plain(values[0])
    fields = {"count": given.storage.count, "scale": levels.scale, "zero": levels.zero}
    return program.add("quantize", [given], given.shape, fields, levels=levels, elementwise=True)


def _dequantize(values: Sequence[Value], program: Program) -> Value:
    given = program.plain(values[0])
    assert given.levels is not None
    fields = {"count": given.storage.count, "scale": given.levels.scale, "zero": given.levels.zero}
    return program.add("dequantize", [given], given.shape, fields)
