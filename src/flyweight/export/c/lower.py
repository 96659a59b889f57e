"""From an ONNX graph to steps: what must be made first, and in which kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flyweight.errors import ExportError
from flyweight.export.c import floats, integers, moves
from flyweight.export.c.error import CannotExpress
from flyweight.export.c.graph import Graph, attributes
from flyweight.export.c.rule import Rule
from flyweight.export.c.values import Levels, Program, Storage, plain

RULES: tuple[Callable[[Graph, str], Rule | None], ...] = (moves.rule, integers.rule, floats.rule)


@dataclass(frozen=True)
class Lowered:
    """The steps that make the logits of one image.

    Attributes:
        image: The caller's storage of pixels: rows of pixels of channels.
        logits: The storage of the answer.
    """

    program: Program
    image: Storage
    logits: Storage


def lower(graph: Graph) -> Lowered:
    """Return the steps that give the logits of one image.

    Raises:
        ExportError: The graph has an operator that no kernel computes.
    """
    shape = graph.shapes[graph.images]
    image = Storage(0, "uint8_t", shape[1] * shape[2] * shape[3])
    made = {graph.images: plain(image, shape, Levels(1.0, 0))}
    program, rules = Program(), dict[str, Rule]()
    waiting = [graph.logits]
    while waiting:
        name = waiting[-1]
        if name in made:
            waiting.pop()
            continue
        rule = rules[name] = rules.get(name) or _rule(graph, name)
        missing = [source for source in rule.sources if source not in made]
        if missing:
            waiting += reversed(missing)
        else:
            made[name] = rule.build([made[source] for source in rule.sources], program)
    logits = program.plain(made[graph.logits])
    if not program.steps or logits.storage.kind != "float":
        raise ExportError("the logits of this file are no floats", do="export the model with flyweight export")
    return Lowered(program, image, logits.storage)


def _rule(graph: Graph, name: str) -> Rule:
    node = graph.maker(name)
    if node is None:
        raise CannotExpress("a constant answer", name)
    for rules in RULES:
        found = rules(graph, name)
        if found is not None:
            return found
    raise CannotExpress(node.op_type, _where(graph, name))


def _where(graph: Graph, name: str) -> str:
    node = graph.maker(name)
    assert node is not None
    details = {key: value for key, value in attributes(node).items() if isinstance(value, (int, float, str, list))}
    shapes = " and ".join(str(list(graph.shapes[source])) for source in node.input if source in graph.shapes)
    return f"giving {name!r} of {shapes}" + (f" with {details}" if details else "")
