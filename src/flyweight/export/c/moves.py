"""Operators that move values without changing them: reshaping, transposing, slicing, joining; of floats or integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from flyweight.export.c.error import CannotExpress
from flyweight.export.c.graph import Graph, attributes
from flyweight.export.c.rule import Rule
from flyweight.export.c.values import Program, Value, plain, reshape

RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"}


def rule(graph: Graph, name: str) -> Rule | None:
    """Return how a moved tensor is made; None where the operator computes something."""
    node = graph.makers[name]
    if node.op_type in RESHAPES:
        return Rule((node.input[0],), partial(_reshape, shape=graph.shapes[name]))
    if node.op_type == "Transpose":
        order = tuple(attributes(node).get("perm", reversed(range(len(graph.shapes[name])))))
        return Rule((node.input[0],), partial(_transpose, order=order))
    if node.op_type == "Slice":
        return Rule((node.input[0],), partial(_slice, slices=_slices(graph, name)))
    if node.op_type == "Split":
        return Rule((node.input[0],), partial(_slice, slices=_part(graph, name)))
    if node.op_type == "Concat":
        return Rule(tuple(node.input), partial(join, axis=attributes(node)["axis"], shape=graph.shapes[name]))
    return None


def join(values: Sequence[Value], program: Program, axis: int, shape: tuple[int, ...]) -> Value:
    """Return the values side by side; all are floats, or integers of the same levels."""
    if len({(value.storage.kind, value.levels) for value in values}) > 1:
        raise CannotExpress("Concat", f"of {len(values)} tensors of different levels")
    first = values[0]
    made = plain(program.storage(first.storage.kind, int(np.prod(shape))), shape, first.levels)
    at = 0
    for value in values:
        offset = at * made.strides[axis]
        program.copy(value, replace(made, shape=value.shape, offset=offset))
        at += value.shape[axis]
    return made


def _reshape(values: Sequence[Value], program: Program, shape: tuple[int, ...]) -> Value:
    return reshape(values[0], shape, program)


def _transpose(values: Sequence[Value], program: Program, order: tuple[int, ...]) -> Value:
    value = values[0]
    return replace(
        value, shape=tuple(value.shape[axis] for axis in order), strides=tuple(value.strides[axis] for axis in order)
    )


def _slice(values: Sequence[Value], program: Program, slices: dict[int, tuple[int, int, int]]) -> Value:
    """Cut by axis: (first, how many, step)."""
    value = values[0]
    shape, strides, offset = list(value.shape), list(value.strides), value.offset
    for axis, (first, many, step) in slices.items():
        offset += first * strides[axis]
        shape[axis], strides[axis] = many, strides[axis] * step
    return replace(value, shape=tuple(shape), strides=tuple(strides), offset=offset)


def _slices(graph: Graph, name: str) -> dict[int, tuple[int, int, int]]:
    node = graph.makers[name]
    shape = graph.shapes[node.input[0]]
    given = [graph.constant(source) if source else None for source in node.input[1:]]
    if given[0] is None or given[1] is None:
        raise CannotExpress("Slice", f"giving {name!r}, with bounds that are computed")
    starts, stops = given[0].tolist(), given[1].tolist()
    axes = given[2].tolist() if len(given) > 2 and given[2] is not None else list(range(len(starts)))
    steps = given[3].tolist() if len(given) > 3 and given[3] is not None else [1] * len(starts)
    found = {}
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        taken = range(shape[axis])[start:stop:step]
        found[axis % len(shape)] = (taken.start, len(taken), step)
    return found


def _part(graph: Graph, name: str) -> dict[int, tuple[int, int, int]]:
    node = graph.makers[name]
    axis = attributes(node).get("axis", 0) % len(graph.shapes[name])
    sizes = [graph.shapes[output][axis] for output in node.output]
    at = list(node.output).index(name)
    return {axis: (sum(sizes[:at]), sizes[at], 1)}
