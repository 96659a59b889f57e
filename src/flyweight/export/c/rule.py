"""What a rule is: which tensors it needs, and how it makes its own of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flyweight.export.c.error import CannotExpress
from flyweight.export.c.graph import Graph
from flyweight.export.c.values import Program, Value


@dataclass(frozen=True)
class Rule:
    """How a tensor is made.

    Attributes:
        sources: Names of the tensors that must be made before.
        build: Gives the tensor of them, adding steps to the program.
    """

    sources: tuple[str, ...]
    build: Callable[[Sequence[Value], Program], Value]


CLAMPS = {"Relu", "Clip"}
UNBOUNDED = (-3.0e38, 3.0e38)


def clamped(graph: Graph, name: str) -> tuple[str, tuple[float, float]]:
    """Return the tensor below the Relu and Clip that nobody else reads, and the range they leave (floats)."""
    low, high = UNBOUNDED
    while (node := graph.maker(name)) is not None and node.op_type in CLAMPS and graph.uses[node.input[0]] == 1:
        least, most = clamp_range(graph, name)
        low, high = min(max(low, least), high), max(min(high, most), low)  # an outer range cuts an inner one
        name = node.input[0]
    return name, (low, high)


def clamp_range(graph: Graph, name: str) -> tuple[float, float]:
    """Return the range that a Relu or Clip leaves. Raises CannotExpress where it is computed."""
    node = graph.makers[name]
    if node.op_type == "Relu":
        return 0.0, UNBOUNDED[1]
    ends = [graph.constant(source) if source else None for source in node.input[1:3]]
    if any(source and end is None for source, end in zip(node.input[1:3], ends, strict=True)):
        raise CannotExpress("Clip", f"giving {name!r}, with bounds that are computed")
    found = [default if end is None else float(end) for end, default in zip(ends, UNBOUNDED, strict=False)]
    return (found[0] if found else UNBOUNDED[0]), (found[1] if len(found) > 1 else UNBOUNDED[1])
