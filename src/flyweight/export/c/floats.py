"""Operators in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from flyweight.export.c.graph import Array, Graph, attributes
from flyweight.export.c.rule import CLAMPS, Rule, clamp_range, clamped
from flyweight.export.c.unary import UNARY
from flyweight.export.c.values import Program, Value, reshape
from flyweight.export.c.windows import dense, pool_window, reduces_pictures, window

OPERATIONS = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}
LAYERS = {"Conv", "Gemm", "MatMul"}


def rule(graph: Graph, name: str) -> Rule | None:
    """Return how a tensor is computed in float32; None for an operator that is not known."""
    base, bounds = clamped(graph, name)
    node = graph.maker(base)
    if node is not None and node.op_type in LAYERS:
        return layer(graph, base, bounds)
    if node is not None and node.op_type in OPERATIONS:
        return (_normalize(graph, name) if base == name else None) or _binary(graph, base, bounds)
    node = graph.makers[name]
    if node.op_type in CLAMPS:
        low, high = clamp_range(graph, name)
        return Rule((node.input[0],), partial(_map, function="Clip", a=low, b=high))
    if node.op_type in UNARY:
        a, b = UNARY[node.op_type].arguments(attributes(node))
        return Rule((node.input[0],), partial(_map, function=node.op_type, a=a, b=b))
    if node.op_type in POOLS and (node.op_type != "ReduceMean" or reduces_pictures(graph, name)):
        given, shape = pool_window(graph, name), graph.shapes[name]
        return Rule((node.input[0],), partial(_pool, kernel=POOLS[node.op_type], given=given, shape=shape))
    if node.op_type == "Cast":
        return _cast(graph, name)
    return None


POOLS = {
    "MaxPool": "maxpool_f32",
    "AveragePool": "avgpool_f32",
    "GlobalAveragePool": "avgpool_f32",
    "ReduceMean": "avgpool_f32",
}


def layer(graph: Graph, name: str, bounds: tuple[float, float]) -> Rule | None:
    """Return how a convolution or dense layer with constant weights is computed."""
    found = weights_of(graph, name, graph.constant)
    if found is None:
        return None
    weight, bias, given = found
    low, high = bounds
    kernel, parameters = arranged(weight, given)
    parameters = {**parameters, "bias": bias, "low": low, "high": high}
    source, shape = graph.makers[name].input[0], graph.shapes[name]
    return Rule((source,), partial(_layer, kernel=f"{kernel}_f32", parameters=parameters, shape=shape))


def weights_of(
    graph: Graph, name: str, constant: Callable[[str], Array | None]
) -> tuple[Array, Array | None, dict[str, Any]] | None:
    """Return (weights (out, in, kh, kw), bias (out,) or None, fields of the struct) of a layer.

    Args:
        constant: Gives a constant by name, or None.
    """
    node = graph.makers[name]
    given, weight = attributes(node), constant(node.input[1])
    bias = constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or (len(node.input) > 2 and node.input[2] and bias is None):
        return None
    if node.op_type == "Conv":
        fields = window(graph, name, weight.shape[2:])
        return weight, bias, {**fields, "out_c": weight.shape[0], "groups": given.get("group", 1)}
    if node.op_type == "Gemm" and (given.get("transA") or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1):
        return None
    if weight.ndim != 2:
        return None
    weight = weight if given.get("transB") else weight.T
    if bias is not None:
        bias = np.broadcast_to(bias.ravel(), weight.shape[:1])
    before = graph.shapes[node.input[0]]
    return weight[:, :, None, None], bias, dense(math.prod(before) // before[-1], before[-1], len(weight))


def arranged(weight: Array, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the kernel, conv or depthwise, and its fields with the weights in the order that it reads."""
    if given["groups"] == given["c"] == given["out_c"] and given["c"] > 1:
        fields = {key: value for key, value in given.items() if key not in {"groups", "out_c"}}
        return "depthwise", {**fields, "weight": np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))}
    return "conv", {**given, "weight": np.ascontiguousarray(weight.transpose(0, 2, 3, 1))}


def _layer(values: Sequence[Value], program: Program, kernel: str, parameters: Any, shape: tuple[int, ...]) -> Value:
    return program.add(kernel, [program.plain(values[0])], shape, parameters)


def _binary(graph: Graph, name: str, bounds: tuple[float, float]) -> Rule | None:
    node = graph.makers[name]
    operation, (a, b) = OPERATIONS[node.op_type], node.input
    if graph.constant(a) is not None and operation in "+*":
        a, b = b, a  # the constant second
    constant, shape = graph.constant(b), graph.shapes[name]
    if constant is None and operation in "+*" and graph.shapes[b] == shape != graph.shapes[a]:
        a, b = b, a
    if graph.constant(a) is not None or graph.shapes[a] != shape:
        return None
    other = graph.shapes[b] if constant is None else constant.shape
    period = repeats(other, shape)
    if period is None:
        return None
    parameters = {"operation": operation, "period": period, "low": bounds[0], "high": bounds[1]}
    if constant is not None:
        parameters["constant"] = usual_order(constant, shape).astype(np.float32)
    return Rule((a,) if constant is not None else (a, b), partial(_operate, parameters=parameters))


def repeats(other: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
    """Return after how many elements the second operand begins again; None where it is of neither usual shape."""
    count = math.prod(other)
    if count == 1 or tuple(other) == tuple(shape):
        return count
    inner = 1 if len(shape) == 4 else len(shape) - 1
    padded = (1,) * (len(shape) - len(other)) + tuple(other)
    alone = all(size == 1 for axis, size in enumerate(padded) if axis != inner)
    return count if alone and padded[inner] == shape[inner] else None


def usual_order(constant: Array, shape: tuple[int, ...]) -> Array:
    """Return a constant's elements as they lie in memory."""
    return (constant.transpose(0, 2, 3, 1) if constant.ndim == len(shape) == 4 else constant).ravel()


def _operate(values: Sequence[Value], program: Program, parameters: dict[str, Any]) -> Value:
    given = [program.plain(value) for value in values]
    count = given[0].storage.count
    return program.add("binary_f32", given, given[0].shape, {**parameters, "count": count}, elementwise=True)


def _normalize(graph: Graph, name: str) -> Rule | None:
    """Return how pixels become floats, where a tensor is `(pixel - shift) * scale`."""
    scaling = graph.makers[name]
    shifting = graph.maker(scaling.input[0])
    if scaling.op_type != "Mul" or shifting is None or shifting.op_type != "Sub":
        return None
    casting = graph.maker(shifting.input[0])
    shift, scale = graph.constant(shifting.input[1]), graph.constant(scaling.input[1])
    if casting is None or casting.op_type != "Cast" or shift is None or scale is None:
        return None
    channels = graph.shapes[name][1]
    if not is_pixels(graph, casting.output[0]) or {shift.size, scale.size} - {1, channels}:
        return None
    each = {"shift": np.broadcast_to(shift.ravel(), channels), "scale": np.broadcast_to(scale.ravel(), channels)}
    return Rule((casting.input[0],), partial(_to_floats, parameters=each))


def _to_floats(values: Sequence[Value], program: Program, parameters: dict[str, Any]) -> Value:
    pixels = program.plain(values[0])
    fields = {**parameters, "count": pixels.storage.count, "channels": pixels.channels}
    return program.add("normalize", [pixels], pixels.shape, fields)


def is_pixels(graph: Graph, name: str) -> bool:
    """Tell whether a tensor is the image as floats 0 to 255, perhaps cut or turned."""
    node = graph.maker(name)
    if node is None or node.op_type != "Cast":
        return False
    name = node.input[0]
    while (node := graph.maker(name)) is not None and node.op_type in {"Slice", "Transpose", "Identity"}:
        name = node.input[0]
    return name == graph.images


def _cast(graph: Graph, name: str) -> Rule | None:
    source = graph.makers[name].input[0]
    if is_pixels(graph, name):
        channels = graph.shapes[name][1]
        same = {"shift": np.zeros(channels, np.float32), "scale": np.ones(channels, np.float32)}
        return Rule((source,), partial(_to_floats, parameters=same))
    return Rule((source,), lambda values, program: values[0]) if attributes(graph.makers[name])["to"] == 1 else None


def _map(values: Sequence[Value], program: Program, function: str, a: float, b: float) -> Value:
    given = program.plain(values[0])
    parameters = {"function": function, "count": given.storage.count, "a": a, "b": b}
    return program.add("map_f32", [given], given.shape, parameters, elementwise=True)


def _pool(
    values: Sequence[Value], program: Program, kernel: str, given: dict[str, Any], shape: tuple[int, ...]
) -> Value:
    pooled = (1, given["c"], given["out_h"], given["out_w"])
    return reshape(program.add(kernel, [program.plain(values[0])], pooled, given), shape, program)
