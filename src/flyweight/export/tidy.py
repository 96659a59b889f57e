"""Make an exported graph plain: nothing in it that only the exporter needed."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from flyweight import __version__
from flyweight.models.cost import NORMALIZE

_LAST_TWO = ({2, 3}, {-2, -1})


def tidy(model: onnx.ModelProto, props: Mapping[str, str]) -> None:
    """Strip source lines, stack traces and inferred shapes in place, name nodes by number, and set our own metadata."""
    graph = model.graph
    pool_globally(graph)
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
        if hasattr(part, "doc_string"):
            part.doc_string = ""
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
    del graph.value_info[:]
    del model.functions[:]
    graph.name = "flyweight"
    model.producer_name, model.producer_version = "flyweight", __version__
    for key in sorted(props):
        model.metadata_props.add(key=key, value=props[key])


def shorten(model: onnx.ModelProto) -> None:
    """Give tensors short names and leave out what is the default anyway, in place.

    In an int8 file of 15 kB of weights, long names and default attributes take as much again. `models.cost.count`
    knows the constants of the normalisation by their names, which stay, and learned tensors by what reads them.
    """
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output) if name)
    names |= dict.fromkeys(tensor.name for tensor in graph.initializer)
    kept |= {tensor.name for tensor in graph.initializer if tensor.name.startswith(NORMALIZE)}
    short = {name: name if name in kept else _in_base_36(number) for number, name in enumerate(names)}
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        node.name = ""
        node.input[:] = [short.get(name, "") for name in node.input]
        node.output[:] = [short.get(name, "") for name in node.output]
        needed = [attribute for attribute in node.attribute if not _is_default(node, attribute)]
        del node.attribute[:]
        node.attribute.extend(needed)


def _in_base_36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[number] if number < 36 else _in_base_36(number // 36) + digits[number % 36]


_ONES = {"dilations", "strides"}  # default to one along each axis
_OTHERS = (("group", 1, b""), ("auto_pad", 0, b"NOTSET"))


def _is_default(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> bool:
    if node.op_type not in {"Conv", "MaxPool"}:
        return False
    if attribute.name in _ONES:
        return set(attribute.ints) == {1}
    if attribute.name == "pads":
        return not any(attribute.ints)
    if attribute.name == "kernel_shape":
        return str(node.op_type) == "Conv"  # that of its weights
    return (attribute.name, attribute.i, attribute.s) in _OTHERS


def pool_globally(graph: onnx.GraphProto) -> None:
    """Say GlobalAveragePool where the exporter wrote the mean over height and width.

    ONNX Runtime keeps its blocked layout through the pool but leaves and re-enters it around ReduceMean: 3 to 5 % of
    the time of MobileNetV3-Small at 32 and 96 px, one thread.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    for node in graph.node:
        if node.op_type == "ReduceMean" and _is_global_mean(node, constants) and ranks.get(node.input[0]) == 4:
            del node.input[1:], node.attribute[:]
            node.op_type = "GlobalAveragePool"
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _is_global_mean(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if len(node.input) < 2 or node.input[1] not in constants or not flags.get("keepdims", 1):
        return False
    return set(onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()) in _LAST_TWO
