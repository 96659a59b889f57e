"""The geometry that convolutions and pools share: kernel, strides, gaps, padding."""

from __future__ import annotations

from typing import Any

from flyweight.export.c.error import CannotExpress
from flyweight.export.c.graph import Graph, attributes

WHOLE = {"GlobalAveragePool", "ReduceMean"}


def window(graph: Graph, name: str, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Return the fields of a kernel's struct that say where its windows lie. Raises CannotExpress."""
    node = graph.makers[name]
    given, before = attributes(node), graph.shapes[node.input[0]]
    after = (1, 1, 1, 1) if node.op_type in WHOLE else graph.shapes[name]
    if len(before) != 4:
        raise CannotExpress(node.op_type, f"giving {name!r} of {len(before) - 2} dimensions, not of pictures")
    strides, gaps = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    pads = given.get("pads", [0, 0, 0, 0])
    auto = given.get("auto_pad", "NOTSET")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        reach = [gap * (size - 1) + 1 for gap, size in zip(gaps, kernel, strict=True)]
        total = [
            max((out - 1) * stride + one - size, 0)
            for out, stride, one, size in zip(after[2:], strides, reach, before[2:], strict=True)
        ]
        pads = [(one + (auto == "SAME_LOWER")) // 2 for one in total]
    return {
        **{"h": before[2], "w": before[3], "c": before[1], "out_h": after[2], "out_w": after[3]},
        **{"kh": kernel[0], "kw": kernel[1], "down": strides[0], "across": strides[1]},
        **{"gap_h": gaps[0], "gap_w": gaps[1], "top": pads[0], "left": pads[1]},
    }


def dense(pixels: int, depth: int, wide: int) -> dict[str, Any]:
    """Return the same for a dense layer over `pixels` rows of `depth` values, giving `wide` each."""
    return {
        **{"h": 1, "w": pixels, "c": depth, "out_h": 1, "out_w": pixels, "out_c": wide, "kh": 1, "kw": 1},
        **{"down": 1, "across": 1, "gap_h": 1, "gap_w": 1, "top": 0, "left": 0, "groups": 1},
    }


def pool_window(graph: Graph, name: str) -> dict[str, Any]:
    """Return the fields of `struct pool` of any pool. Raises CannotExpress."""
    node = graph.makers[name]
    given, before = attributes(node), graph.shapes[node.input[0]]
    found = {
        **window(graph, name, before[2:] if node.op_type in WHOLE else tuple(given["kernel_shape"])),
        "padding_counts": given.get("count_include_pad", 0),
    }
    ends = zip(("down", "kh", "top", "h", "out_h"), ("across", "kw", "left", "w", "out_w"), strict=True)
    (step_h, step_w), (kh, kw), (top, left), (h, w), (out_h, out_w) = (
        (found[one], found[other]) for one, other in ends
    )
    padded = top or left or (out_h - 1) * step_h + kh > h + top or (out_w - 1) * step_w + kw > w + left
    if found["padding_counts"] and given.get("ceil_mode", 0):
        raise CannotExpress(node.op_type, f"giving {name!r}, with ceil_mode and count_include_pad at once")
    return {**found, "padding_counts": int(found["padding_counts"] or not padded)}


def reduces_pictures(graph: Graph, name: str) -> bool:
    """Tell whether a ReduceMean is the mean over height and width of a picture."""
    node = graph.makers[name]
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else attributes(node).get("axes")
    before = graph.shapes[node.input[0]]
    return axes is not None and len(before) == 4 and {int(axis) % 4 for axis in axes} == {2, 3}
