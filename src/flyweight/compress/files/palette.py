"""Weight sharing: each tensor has a palette of 256 (or 16) values, and each weight is an index into it.

The file holds one byte (or half of one) for a weight, the palette, and a scale for each output channel. Which value
stands where is looked up once, when the runtime loads the file and folds its constants; it then computes in float, as
fast as before. In formats that store tensors alone (safetensors) nothing could look the values up, so there the
palette would save nothing.
Source: Han et al. 2015, "Deep Compression" (arXiv:1510.00149), section 3: k-means, shared weights. Changed: scales of
output channels are taken out first; no Huffman coding.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from flyweight.compress.files.context import FileContext, Made, refuse_branches, weights_of
from flyweight.compress.step import Options
from flyweight.models.cost import INDICES, PALETTE

SPACINGS = 4  # a level, to see the density by
ITERATIONS = 300


class Palette(Options):
    """How many values share a tensor.

    Attributes:
        bits: 8: a palette of 256 and a byte a weight; 4: of 16, and half a byte.
        least: Tensors with fewer values stay as they are: a palette would take more than it saves.
    """

    bits: Literal["8", "4"] = "8"
    least: int = Field(default=2048, ge=16)


def palette(context: FileContext, options: Palette) -> Made:
    """Return the file with its weights as indices into palettes.

    Raises:
        CompressError: The file has an early exit.
    """
    model = context.model()
    refuse_branches(model, "palette")
    bits = int(options.bits)
    chosen = weights_of(model, options.least)
    shared, nodes = [], []
    for tensor in chosen:
        tensors, own = _shared(tensor, bits)
        shared += tensors
        nodes += own
    names = {tensor.name for tensor in chosen}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    before = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*kept, *shared])
    model.graph.node.extend([*nodes, *before])
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    name = f"palette{bits}"
    told = f"{len(chosen)} tensors share {2**bits} values each"
    return Made(name, content, name, facts={"tensors": len(chosen), "bits": bits}, said=(told,))


def _shared(tensor: onnx.TensorProto, bits: int) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Return what a tensor becomes: indices, palette and scales, and the nodes that make it of them again."""
    name, values = tensor.name, numpy_helper.to_array(tensor)
    scale = np.abs(values).reshape(len(values), -1).max(axis=1).clip(1e-30)
    each = scale.reshape(-1, *[1] * (values.ndim - 1))
    found, indices = cluster((values / each).ravel(), 2**bits)
    stem = f"{name}{INDICES}{values.size}"
    tensors = [
        numpy_helper.from_array(packed(indices, bits), stem),
        numpy_helper.from_array(found, name + PALETTE),
        numpy_helper.from_array(each.astype(np.float32), name + ".scale" + PALETTE),
        numpy_helper.from_array(np.array(values.shape, np.int64), name + ".shape" + PALETTE),
    ]
    nodes = [helper.make_node("Cast", [stem], [name + ".wide"], to=TensorProto.INT32)]
    if bits == 4:
        nodes += _unpacked(name)
        tensors += [
            numpy_helper.from_array(np.array(16, np.int32), name + ".half" + PALETTE),
            numpy_helper.from_array(np.array([0], np.int64), name + ".start" + PALETTE),
            numpy_helper.from_array(np.array([values.size], np.int64), name + ".end" + PALETTE),
        ]
    nodes += [
        helper.make_node("Gather", [name + PALETTE, name + (".unpacked" if bits == 4 else ".wide")], [name + ".flat"]),
        helper.make_node("Reshape", [name + ".flat", name + ".shape" + PALETTE], [name + ".unit"]),
        helper.make_node("Mul", [name + ".unit", name + ".scale" + PALETTE], [name]),
    ]
    return tensors, nodes


def _unpacked(name: str) -> list[onnx.NodeProto]:
    """Return the nodes that take two indices out of each byte: the first half low, the second half high.

    In arithmetic of int32, which every opset has; ONNX has BitwiseAnd since opset 18 alone.
    """
    return [
        helper.make_node("Div", [name + ".wide", name + ".half" + PALETTE], [name + ".high"]),
        helper.make_node("Mul", [name + ".high", name + ".half" + PALETTE], [name + ".rest"]),
        helper.make_node("Sub", [name + ".wide", name + ".rest"], [name + ".low"]),
        helper.make_node("Concat", [name + ".low", name + ".high"], [name + ".both"], axis=0),
        helper.make_node(
            "Slice", [name + ".both", name + ".start" + PALETTE, name + ".end" + PALETTE], [name + ".unpacked"]
        ),
    ]


def packed(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return indices (N,) as bytes: one each, or of 4 bits two to a byte, the second half of them in the high bits."""
    if bits == 8:
        return indices
    half = (len(indices) + 1) // 2
    high = np.zeros(half, np.uint8)
    high[: len(indices) - half] = indices[half:]
    found: NDArray[np.uint8] = np.bitwise_or(indices[:half], np.left_shift(high, 4)).astype(np.uint8)
    return found


def cluster(values: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the palette (count,) float32 and the index (N,) of each value: k-means along a line.

    It begins with levels as dense as the cube root of the values' density, which is best for many levels.
    Source: Panter and Dite 1951, Quantization distortion in pulse-count modulation with nonuniform spacing of levels.
    """
    ordered = np.sort(values.astype(np.float64))
    some = np.quantile(ordered, np.linspace(0, 1, SPACINGS * count + 1))  # equally many values between any two of them
    reached = np.concatenate([[0.0], np.cumsum(np.diff(some) ** (2 / 3))])  # of the integral of the cube root
    wanted = (np.arange(count) + 0.5) / count * reached[-1]
    centres = np.unique(np.interp(wanted, reached, some))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(ITERATIONS):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], edges, [len(ordered)]])
        counts = np.diff(ends)
        moved = np.where(counts > 0, (sums[ends[1:]] - sums[ends[:-1]]) / np.maximum(counts, 1), centres)
        if np.allclose(moved, centres, rtol=0, atol=1e-9):
            break
        centres = np.sort(moved)
    found = np.zeros(count, np.float32)
    found[: len(centres)] = centres
    indices = np.searchsorted((centres[1:] + centres[:-1]) / 2, values).astype(np.uint8)
    return found, indices
