"""What each ONNX operator is called in LiteRT: one function each, in one dictionary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from flyweight.export.tflite.graph import TO_LAST, Graph, Shape

SAME, VALID = 0, 1  # LiteRT's words for padding
NONE, RELU, RELU6 = 0, 1, 3  # activations that an operator applies to what it gives


class CannotExpressError(Exception):
    """An operator, or what is asked of it, has no counterpart. The message says which."""


@dataclass(frozen=True)
class Node:
    """An ONNX node as it is translated.

    Attributes:
        inputs: Names; an empty one was left out.
        shapes: Of ONNX's tensors by name, for one image.
        constants: By name.
        activation: That follows it alone and that it applies itself.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    shapes: dict[str, Shape]
    constants: dict[str, NDArray[Any]]
    activation: int = NONE

    def constant(self, place: int) -> NDArray[Any] | None:
        """Return the fixed values of an input, None where it has none."""
        return self.constants.get(self.inputs[place]) if place < len(self.inputs) else None

    def needed(self, place: int) -> NDArray[Any]:
        """Return the fixed values of an input that must have some."""
        found = self.constant(place)
        if found is None:
            raise CannotExpressError(f"input {place} is not constant")
        return found

    @property
    def out(self) -> Shape:
        """Shape of the first output."""
        return self.shapes[self.outputs[0]]


Tensors = dict[str, int]  # ONNX's name: the graph's number


def _last(shape: Sequence[int]) -> Shape:
    """Return a shape as the file has it."""
    return tuple(shape[i] for i in TO_LAST) if len(shape) == 4 else tuple(shape)


def _axis(axis: int, rank: int) -> int:
    """Return where an axis is in the file."""
    axis %= rank
    return {0: 0, 1: 3, 2: 1, 3: 2}[axis] if rank == 4 else axis


def _operand(graph: Graph, tensors: Tensors, node: Node, place: int, rank: int) -> int:
    """Return an input of an elementwise operator: a tensor, or a constant that is spread over one of that rank."""
    values = node.constant(place)
    if values is None:
        return tensors[node.inputs[place]]
    if rank == 4 and values.ndim:
        values = values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(TO_LAST)
    return graph.constant(values.astype(np.float32), node.inputs[place])


def _elementwise(code: str, options: str | None) -> Callable[[Graph, Tensors, Node], int]:
    def write(graph: Graph, tensors: Tensors, node: Node) -> int:
        rank = len(node.out)
        inputs = [_operand(graph, tensors, node, place, rank) for place in (0, 1)]
        for name in node.inputs:
            if name not in node.constants and len(node.shapes[name]) != rank:
                raise CannotExpressError("tensors of different ranks")
        given = None if options is None else (options, _fused(node))
        return graph.operator(code, inputs, node.name, _last(node.out), given)

    return write


def _fused(node: Node) -> dict[str, Any]:
    return {"fusedActivationFunction": node.activation}


def _unary(code: str, options: tuple[str, dict[str, Any]] | None = None) -> Callable[[Graph, Tensors, Node], int]:
    def write(graph: Graph, tensors: Tensors, node: Node) -> int:
        return graph.operator(code, [tensors[node.inputs[0]]], node.name, _last(node.out), options)

    return write


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what LiteRT's SAME adds before and after one side."""
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _windows(node: Node, sides: Shape, kernel: Sequence[int]) -> tuple[int, list[int], list[int], list[int]]:
    """Return LiteRT's padding if it has a word for ONNX's, and pads, strides, dilations.

    The padding is -1 where the image must be padded first.
    """
    pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    strides = list(node.attributes.get("strides", [1, 1]))
    dilations = list(node.attributes.get("dilations", [1, 1]))
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise CannotExpressError(f"auto_pad {node.attributes['auto_pad']}")
    if not any(pads):
        return VALID, pads, strides, dilations
    same = [_same_padding(*of) for of in zip(sides, kernel, strides, dilations, strict=True)]
    exact = all((pads[i], pads[i + 2]) == same[i] for i in (0, 1))
    return (SAME if exact else -1), pads, strides, dilations


def _padded(graph: Graph, tensor: int, pads: Sequence[int], name: str, value: float = 0.0) -> int:
    """Return (N, H, W, C) with rows and columns of `value` around each image."""
    n, height, width, channels = graph.shapes[tensor]
    shape = (n, height + pads[0] + pads[2], width + pads[1] + pads[3], channels)
    around = graph.constant(np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32))
    if value == 0.0:
        return graph.operator("PAD", [tensor, around], f"{name}_padded", shape, ("PadOptions", {}))
    filled = graph.constant(np.float32(value).reshape(()))
    return graph.operator("PADV2", [tensor, around, filled], f"{name}_padded", shape, ("PadV2Options", {}))


def _conv(graph: Graph, tensors: Tensors, node: Node) -> int:
    weight = node.needed(1)
    if weight.ndim != 4:
        raise CannotExpressError(f"{weight.ndim - 2} spatial dimensions")
    bias = np.zeros(len(weight), np.float32) if len(node.inputs) < 3 or not node.inputs[2] else node.needed(2)
    given, groups = tensors[node.inputs[0]], int(node.attributes.get("group", 1))
    channels = graph.shapes[given][3]
    padding, pads, strides, dilations = _windows(node, graph.shapes[given][1:3], weight.shape[2:])
    if padding < 0:
        given, padding = _padded(graph, given, pads, node.name), VALID
    options = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        **_fused(node),
    }
    if groups == channels and groups > 1:  # depthwise: (1, H, W, out)
        kernel = weight.transpose(1, 2, 3, 0)
        code, kind = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["depthMultiplier"] = len(weight) // channels
    else:  # (out, H, W, in / groups); LiteRT knows groups by the channels that the kernel lacks
        kernel = weight.transpose(0, 2, 3, 1)
        code, kind = "CONV_2D", "Conv2DOptions"
    inputs = [given, graph.constant(kernel, node.inputs[1]), graph.constant(bias, f"{node.name}_bias")]
    return graph.operator(code, inputs, node.name, _last(node.out), (kind, options))


def _gemm(graph: Graph, tensors: Tensors, node: Node) -> int:
    ones = (node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0))
    if ones != (1.0, 1.0) or node.attributes.get("transA", 0):
        raise CannotExpressError("alpha, beta or transA")
    weight = node.needed(1)
    weight = weight if node.attributes.get("transB", 0) else weight.T
    bias = np.zeros(len(weight), np.float32) if len(node.inputs) < 3 or not node.inputs[2] else node.needed(2)
    bias = np.broadcast_to(bias.reshape(-1), (len(weight),))
    return _connected(graph, tensors[node.inputs[0]], weight, bias, node)


def _matmul(graph: Graph, tensors: Tensors, node: Node) -> int:
    weight = node.constant(1)
    if weight is None or weight.ndim != 2 or len(node.shapes[node.inputs[0]]) != 2:
        raise CannotExpressError("a product of two computed tensors, or of more than two dimensions")
    return _connected(graph, tensors[node.inputs[0]], weight.T, np.zeros(weight.shape[1], np.float32), node)


def _connected(graph: Graph, given: int, weight: NDArray[Any], bias: NDArray[Any], node: Node) -> int:
    inputs = [given, graph.constant(weight, node.inputs[1]), graph.constant(bias, f"{node.name}_bias")]
    return graph.operator("FULLY_CONNECTED", inputs, node.name, node.out, ("FullyConnectedOptions", _fused(node)))


def _pool(code: str) -> Callable[[Graph, Tensors, Node], int]:
    def write(graph: Graph, tensors: Tensors, node: Node) -> int:
        given, kernel = tensors[node.inputs[0]], list(node.attributes["kernel_shape"])
        padding, pads, strides, dilations = _windows(node, graph.shapes[given][1:3], kernel)
        if dilations != [1, 1] or node.attributes.get("ceil_mode", 0) or len(kernel) != 2:
            raise CannotExpressError("a pool with dilation, ceil_mode or other than two dimensions")
        counted = node.attributes.get("count_include_pad", 0)
        if code == "AVERAGE_POOL_2D" and any(pads) and (padding < 0) != bool(counted):
            raise CannotExpressError(f"padding {pads} with count_include_pad {counted}")
        if padding < 0:
            value = 0.0 if code == "AVERAGE_POOL_2D" else float(np.finfo(np.float32).min)
            given, padding = _padded(graph, given, pads, node.name, value), VALID
        options = {
            "padding": padding,
            "strideH": strides[0],
            "strideW": strides[1],
            "filterHeight": kernel[0],
            "filterWidth": kernel[1],
        }
        return graph.operator(code, [given], node.name, _last(node.out), ("Pool2DOptions", options))

    return write


def _reduce(code: str) -> Callable[[Graph, Tensors, Node], int]:
    def write(graph: Graph, tensors: Tensors, node: Node) -> int:
        rank, given = len(node.shapes[node.inputs[0]]), tensors[node.inputs[0]]
        axes = [2, 3] if node.op.startswith("Global") else node.attributes.get("axes")
        axes = [int(axis) for axis in (node.needed(1) if axes is None else axes)]
        keep = bool(node.attributes.get("keepdims", 1))
        if not keep and rank == 4 and sorted(axis % 4 for axis in axes) not in ([2, 3], [1, 2, 3]):
            given, moved = graph.plain(given, node.name), axes  # what is left would be in another order
        else:
            moved = [_axis(axis, rank) for axis in axes]
        shape = _last(node.out) if keep else node.out
        wanted = graph.constant(np.array(moved, np.int32))
        return graph.operator(code, [given, wanted], node.name, shape, ("ReducerOptions", {"keepDims": keep}))

    return write


def _reshape(graph: Graph, tensors: Tensors, node: Node) -> int:
    if node.out[:1] != node.shapes[node.inputs[0]][:1]:
        raise CannotExpressError("a reshape of the batch")
    plain = graph.plain(tensors[node.inputs[0]], node.name)
    if len(node.out) != 4:
        return graph.reshape(plain, node.out, node.name)
    return graph.blocked(graph.reshape(plain, node.out, f"{node.name}_shape"), node.name)


def _transpose(graph: Graph, tensors: Tensors, node: Node) -> int:
    order = [int(axis) for axis in node.attributes["perm"]]
    if order[0] != 0:
        raise CannotExpressError("a transpose of the batch")
    plain = graph.plain(tensors[node.inputs[0]], node.name)
    return graph.blocked(graph.transpose(plain, order, f"{node.name}_order"), node.name)


def _concat(graph: Graph, tensors: Tensors, node: Node) -> int:
    if any(name in node.constants for name in node.inputs):
        raise CannotExpressError("a constant among what is put together")
    axis = _axis(node.attributes["axis"], len(node.out))
    inputs = [tensors[name] for name in node.inputs]
    options = ("ConcatenationOptions", {"axis": axis})
    return graph.operator("CONCATENATION", inputs, node.name, _last(node.out), options)


def _slice(graph: Graph, tensors: Tensors, node: Node) -> int:
    shape = node.shapes[node.inputs[0]]
    starts, ends = node.needed(1).tolist(), node.needed(2).tolist()
    given_axes, given_steps = node.constant(3), node.constant(4)
    axes = list(range(len(starts))) if given_axes is None else given_axes.tolist()
    steps = [1] * len(starts) if given_steps is None else given_steps.tolist()
    begin, stride = [0] * len(shape), [1] * len(shape)
    for axis, start, step in zip(axes, starts, steps, strict=True):
        if step < 1 or axis % len(shape) == 0:
            raise CannotExpressError("a slice of the batch, or backwards")
        place = _axis(axis, len(shape))
        begin[place], stride[place] = slice(start, None).indices(shape[axis])[0], step
    del ends  # the output's shape says where it ends
    out = _last(node.out)
    end = [b + (size - 1) * s + 1 for b, size, s in zip(begin, out, stride, strict=True)]
    inputs = [tensors[node.inputs[0]], *(graph.constant(np.array(one, np.int32)) for one in (begin, end, stride))]
    # The batch is taken whole, however many images there are.
    options = ("StridedSliceOptions", {"beginMask": 1, "endMask": 1})
    return graph.operator("STRIDED_SLICE", inputs, node.name, out, options)


def _split(graph: Graph, tensors: Tensors, node: Node) -> list[int]:
    shape = node.shapes[node.inputs[0]]
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    sizes = [node.shapes[name][axis] for name in node.outputs]
    inputs = [
        tensors[node.inputs[0]],
        graph.constant(np.array(sizes, np.int32)),
        graph.constant(np.array(_axis(axis, len(shape)), np.int32)),
    ]
    shapes = [_last(node.shapes[name]) for name in node.outputs]
    options = ("SplitVOptions", {"numSplits": len(sizes)})
    first = graph.operator("SPLIT_V", inputs, node.outputs[0], shapes[0], options)
    return [first, *graph.more_outputs(node.outputs[1:], shapes[1:])]


def _clip(graph: Graph, tensors: Tensors, node: Node) -> int:
    low, high = (None if node.constant(i) is None else float(node.needed(i)) for i in (1, 2))
    given, shape = tensors[node.inputs[0]], _last(node.out)
    named: dict[tuple[float | None, float | None], str] = {
        (0.0, 6.0): "RELU6",
        (0.0, 1.0): "RELU_0_TO_1",
        (-1.0, 1.0): "RELU_N1_TO_1",
        (0.0, None): "RELU",
    }
    if (low, high) in named:
        return graph.operator(named[low, high], [given], node.name, shape)
    for code, limit in (("MAXIMUM", low), ("MINIMUM", high)):
        if limit is not None:
            value = graph.constant(np.float32(limit).reshape(()))
            given = graph.operator(code, [given, value], f"{node.name}_{code}", shape, ("MaximumMinimumOptions", {}))
    return given


def _hard_sigmoid(graph: Graph, tensors: Tensors, node: Node) -> int:
    """Write clip(alpha x + beta, 0, 1) as relu6(x / (1 / (6 alpha)) + 6 beta) / 6, in two operators."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    given, shape = tensors[node.inputs[0]], _last(node.out)
    number = graph.constant
    if not math.isclose(alpha, 1 / 6, rel_tol=1e-5):
        scaled = number(np.float32(6 * alpha).reshape(()))
        given = graph.operator("MUL", [given, scaled], f"{node.name}_scaled", shape, ("MulOptions", {}))
    moved = number(np.float32(6 * beta).reshape(()))
    options = {"fusedActivationFunction": RELU6}
    given = graph.operator("ADD", [given, moved], f"{node.name}_moved", shape, ("AddOptions", options))
    sixth = number(np.float32(1 / 6).reshape(()))
    return graph.operator("MUL", [given, sixth], node.name, shape, ("MulOptions", {}))


def _cast(graph: Graph, tensors: Tensors, node: Node) -> int:
    if node.attributes["to"] != onnx.TensorProto.FLOAT:
        raise CannotExpressError("a cast to other than float32")
    return graph.operator("CAST", [tensors[node.inputs[0]]], node.name, _last(node.out), ("CastOptions", {}))


def _softmax(graph: Graph, tensors: Tensors, node: Node) -> int:
    rank = len(node.out)
    if _axis(node.attributes.get("axis", -1), rank) != rank - 1:
        raise CannotExpressError("a softmax over another axis than the last")
    given = tensors[node.inputs[0]]
    return graph.operator("SOFTMAX", [given], node.name, _last(node.out), ("SoftmaxOptions", {"beta": 1.0}))


def _batch_norm(graph: Graph, tensors: Tensors, node: Node) -> int:
    scale, shift, mean, variance = (node.needed(i).astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    given, shape = tensors[node.inputs[0]], _last(node.out)
    times = graph.constant(factor.astype(np.float32))
    scaled = graph.operator("MUL", [given, times], f"{node.name}_scaled", shape, ("MulOptions", {}))
    plus = graph.constant((shift - mean * factor).astype(np.float32))
    return graph.operator("ADD", [scaled, plus], node.name, shape, ("AddOptions", _fused(node)))


def _pad(graph: Graph, tensors: Tensors, node: Node) -> int:
    pads = node.needed(1).tolist()
    if len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0:
        raise CannotExpressError(f"pads {pads}")
    if node.attributes.get("mode", b"constant") != b"constant":
        raise CannotExpressError(f"mode {node.attributes['mode']}")
    value = node.constant(2)
    filled = 0.0 if value is None else float(value)
    return _padded(graph, tensors[node.inputs[0]], [pads[2], pads[3], pads[6], pads[7]], node.name, filled)


def _same(graph: Graph, tensors: Tensors, node: Node) -> int:
    return tensors[node.inputs[0]]


OPERATORS: dict[str, Callable[[Graph, Tensors, Node], int | list[int]]] = {
    "Abs": _unary("ABS"),
    "Add": _elementwise("ADD", "AddOptions"),
    "AveragePool": _pool("AVERAGE_POOL_2D"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _elementwise("DIV", "DivOptions"),
    "Dropout": _same,
    "Exp": _unary("EXP"),
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _reduce("MEAN"),
    "GlobalMaxPool": _reduce("REDUCE_MAX"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary("HARD_SWISH"),
    "Identity": _same,
    "LeakyRelu": lambda graph, tensors, node: _unary(
        "LEAKY_RELU", ("LeakyReluOptions", {"alpha": node.attributes.get("alpha", 0.01)})
    )(graph, tensors, node),
    "MatMul": _matmul,
    "Max": _elementwise("MAXIMUM", None),
    "MaxPool": _pool("MAX_POOL_2D"),
    "Min": _elementwise("MINIMUM", None),
    "Mul": _elementwise("MUL", "MulOptions"),
    "Neg": _unary("NEG"),
    "Pad": _pad,
    "ReduceMax": _reduce("REDUCE_MAX"),
    "ReduceMean": _reduce("MEAN"),
    "ReduceSum": _reduce("SUM"),
    "Relu": _unary("RELU"),
    "Reshape": _reshape,
    "Sigmoid": _unary("LOGISTIC"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _unary("SQRT"),
    "Squeeze": _reshape,
    "Sub": _elementwise("SUB", "SubOptions"),
    "Tanh": _unary("TANH"),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}

# What can apply an activation that follows it alone.
FUSES = ("Add", "Conv", "Gemm", "MatMul", "BatchNormalization", "Mul", "Sub")
