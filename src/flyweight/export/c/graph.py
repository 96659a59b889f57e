"""An ONNX graph of one image: who makes what, of which shape, and what is constant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

Array = NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """What lowering asks of a graph.

    Attributes:
        makers: The node that makes each tensor.
        constants: Initializers and what is computed from them alone, by name.
        shapes: Of every tensor, for a batch of one.
        uses: How many inputs of nodes, and outputs of the graph, each tensor is.
        images: Name of the input, (1, C, S, S) uint8.
        logits: Name of the output.
    """

    makers: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    uses: Mapping[str, int]
    images: str
    logits: str

    def maker(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor; None for inputs and constants."""
        return self.makers.get(name)

    def constant(self, name: str) -> Array | None:
        """Return the value of a constant, dequantized where the file holds it as integers; None where it is none."""
        if name in self.constants:
            return self.constants[name]
        node = self.makers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in self.constants:
            return None
        levels, scale, zero = self.levels(name)
        axis = attributes(node).get("axis", 1)
        each = [1] * levels.ndim
        if scale.ndim:
            each[axis] = -1
        found: Array = (levels.astype(np.float32) - zero.astype(np.float32).reshape(each)) * scale.reshape(each)
        return found.astype(np.float32)

    def levels(self, name: str) -> tuple[Array, Array, Array]:
        """Return (integers, scale, zero point) of a dequantized constant, scale and zero point of the same shape."""
        node = self.makers[name]
        scale = self.constants[node.input[1]]
        has_zero = len(node.input) > 2 and node.input[2]
        zero = self.constants[node.input[2]] if has_zero else np.zeros(scale.shape, np.int32)
        return self.constants[node.input[0]], scale, zero.astype(np.int32)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name; texts as str."""
    found = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()}


def read_graph(content: bytes) -> Graph:
    """Return the graph of an ONNX file, for a batch of one image."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {name: array.shape for name, array in known.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    for node in graph.node:
        if node.op_type == "Constant":
            known[node.output[0]] = numpy_helper.to_array(attributes(node)["value"])
    used = Counter(name for node in graph.node for name in node.input)
    used.update(value.name for value in graph.output)
    return Graph(
        makers={name: node for node in graph.node for name in node.output if name not in known},
        constants=known,
        shapes=shapes,
        uses=used,
        images=graph.input[0].name,
        logits=graph.output[0].name,
    )
