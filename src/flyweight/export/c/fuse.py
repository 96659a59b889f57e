"""A sum right behind a convolution is taken in the same kernel, written over its other operand: one tensor less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flyweight.export.c.values import Step

SUMS = {"conv_u8": "add_u8", "conv_f32": "binary_f32"}


def fuse(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with sums of a convolution and an earlier tensor taken by the convolution."""
    reads = Counter(storage.number for step in steps for storage in step.inputs)
    made = {step.output.number: at for at, step in enumerate(steps)}
    found: list[Step | None] = list(steps)
    for at, step in enumerate(steps):
        pair = _latest_first(step, made)
        if pair is None:
            continue
        result, other = pair
        before = made.get(step.inputs[result].number, -1)
        layer = found[before] if before >= 0 else None
        once = reads[step.inputs[result].number] == 1
        if layer is None or not once or SUMS.get(layer.kernel) != step.kernel or len(layer.inputs) > 1:
            continue
        inputs = (*layer.inputs, step.inputs[other])
        parameters = {**layer.parameters, "sum": _sum(step, result)}
        found[at] = replace(layer, inputs=inputs, output=step.output, parameters=parameters, over=1)
        found[before] = None
    return [step for step in found if step is not None]


def _latest_first(step: Step, made: dict[int, int]) -> tuple[int, int] | None:
    """Return which operand of a sum is made last, and which one first; None where the step is no sum of two alike."""
    whole = len(step.inputs) == 2 and step.parameters.get("period") == step.parameters.get("count")
    if step.kernel not in SUMS.values() or not whole or step.parameters.get("operation", "+") != "+":
        return None
    order = sorted((0, 1), key=lambda one: made.get(step.inputs[one].number, -1))
    return order[1], order[0]


def _sum(step: Step, result: int) -> Mapping[str, float]:
    """Return the fields of a sum whose first operand is what the convolution gives."""
    if step.kernel == "binary_f32":
        return {key: step.parameters[key] for key in ("low", "high")}
    fields: Mapping[str, float] = step.parameters["sum"]
    if result == 0:
        return fields
    other = {"a": "b", "b": "a"}
    return {f"{other[key[0]]}{key[1:]}" if key[:2] in {"a_", "b_"} else key: value for key, value in fields.items()}
