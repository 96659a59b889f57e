"""Walk an ONNX graph and write it as a `.tflite` file: uint8 images (N, S, S, C) in, logits (N, K) out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.export.tflite.graph import Graph, Shape
from flyweight.export.tflite.operators import FUSES, NONE, OPERATORS, RELU, RELU6, CannotExpressError, Node


class CannotWriteError(Exception):
    """A node has no counterpart in LiteRT.

    Attributes:
        operator: Its ONNX name.
        where: The node, and why.
    """

    def __init__(self, operator: str, where: str) -> None:
        super().__init__(f"{operator}: {where}")
        self.operator, self.where = operator, where


def to_tflite(content: bytes, texts: Mapping[str, str], description: str) -> bytes:
    """Return a float ONNX file as a `.tflite` file.

    Args:
        texts: Its metadata.

    Raises:
        CannotWriteError: A node has no counterpart.
    """
    model = onnx.load_model_from_string(content)
    nodes, shapes = _nodes(model)
    graph = Graph()
    given = model.graph.input[0].name
    n, channels, height, width = shapes[given]
    tensors = {given: graph.tensor(given, (n, height, width, channels), np.uint8)}
    for node in nodes:
        try:
            found = OPERATORS[node.op](graph, tensors, node)
        except CannotExpressError as error:
            raise CannotWriteError(node.op, f"{node.name}: {error}") from error
        tensors |= dict(zip(node.outputs, found if isinstance(found, list) else [found], strict=True))
    return graph.to_bytes(tensors[given], tensors[model.graph.output[0].name], texts, description)


def _nodes(model: onnx.ModelProto) -> tuple[list[Node], dict[str, Shape]]:
    """Return the nodes that compute something of the images, activations joined to what comes before, and shapes."""
    constants, shapes = _constants_and_shapes(model)
    computed = [node for node in model.graph.node if not all(name in constants for name in node.output)]
    for node in computed:
        if node.op_type not in OPERATORS:
            raise CannotWriteError(node.op_type, f"the node that gives {node.output[0]}")
    nodes = [
        Node(
            op=node.op_type,
            name=node.output[0],
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={one.name: onnx.helper.get_attribute_value(one) for one in node.attribute},
            shapes=shapes,
            constants=constants,
        )
        for node in computed
    ]
    return list(_joined(nodes, model.graph.output[0].name)), shapes


def _constants_and_shapes(
    model: onnx.ModelProto,
) -> tuple[dict[str, np.ndarray], dict[str, Shape]]:
    """Return what is fixed, computed from constants included, and the shape of each tensor for one image."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=True, data_prop=True).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(onnx.helper.get_attribute_value(node.attribute[0]))
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    shapes = {value.name: tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim) for value in values}
    shapes |= {name: value.shape for name, value in constants.items()}
    return constants, shapes


def _joined(nodes: list[Node], result: str) -> Iterator[Node]:
    """Yield the nodes; one that is followed by a ReLU or ReLU6 alone applies that itself."""
    readers = Counter(name for node in nodes for name in node.inputs)
    taken = {node.inputs[0]: node for node in nodes if _activation(node) != NONE}
    gone: set[str] = set()
    for node in nodes:
        if node.name in gone:
            continue
        after = taken.get(node.name)
        if after is None or node.op not in FUSES or readers[node.name] != 1 or node.name == result:
            yield node
            continue
        gone.add(after.name)
        yield replace(node, name=after.name, outputs=after.outputs, activation=_activation(after))


def _activation(node: Node) -> int:
    if node.op == "Relu":
        return RELU
    if node.op == "Clip":
        limits = [node.constant(1), node.constant(2)]
        if all(limit is not None for limit in limits) and [float(node.needed(i)) for i in (1, 2)] == [0.0, 6.0]:
            return RELU6
    return NONE
