"""What a shipped ONNX file costs, counted from its graph: parameters, MACs, peak activation bytes. No torch.

These are counts, not measurements: they are exact, the same on every machine, and say nothing about milliseconds.

params: elements of the learned tensors in the file. Not learned, so not counted: the constants of the input
    normalisation, running statistics of batch norms that could not be folded, single values that are no parameter of
    the network by name (0.5, the scale of an attention), integer tensors (shapes, indices) and, in quantized files,
    scales and zero points. A tensor used twice counts once.
macs: multiply-accumulates of one image through convolutions and matrix products (FLOPs = 2 × MACs). Bias additions,
    elementwise operators, normalisations, pooling and resizing are not multiply-accumulates and count nothing.
    An operator this file does not know is listed in `unsupported`, never passed over in silence.
peak_activation_bytes: one image, graph order, planner `PLANNER`; weights are not in it. Between a QuantizeLinear and
    the DequantizeLinear before it a tensor is counted as the integers that a runtime holds there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from flyweight.errors import ModelError

PLANNER = (
    "graph order, batch 1: a tensor lives from the node that makes it to its last use; Reshape-like operators share "
    "their input's memory, and a unary elementwise operator writes over an input of the same size that dies there"
)

# Prefixes of the names of what a network holds, see Architecture.build: constants of the first layer, parameters.
NORMALIZE, NETWORK = "normalize.", "net."
# Shared weights (compress.palette): the values and scales of a tensor, and where each weight finds its own.
PALETTE, INDICES = ".palette", ".indices."

_Shapes = dict[str, tuple[int, ...]]

_ALIAS_OPS = "Reshape Flatten Squeeze Unsqueeze Identity DequantizeLinear"
_UNARY_OPS = """
    Relu LeakyRelu PRelu Clip HardSwish HardSigmoid Sigmoid Tanh Erf Gelu Elu Selu Softplus Mish Swish
    Abs Neg Exp Log Sin Cos Sqrt Reciprocal Round Floor Ceil QuantizeLinear
"""
# What runtimes compute in integers where a QuantizeLinear follows.
_INTEGER_OPS = frozenset(["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "AveragePool", "MaxPool"])
# Operators that do no multiply-accumulate; one that is neither here nor in _MACS is reported as unsupported.
_FREE_OPS = """
    Add Sub Mul Div Pow Max Min Where Equal Less Greater GreaterOrEqual LessOrEqual Not And Or Cast Constant
    ConstantOfShape Shape Size Mod Range
    CumSum Gather GatherElements GatherND Slice Split Concat Transpose Expand Tile Pad DepthToSpace SpaceToDepth Resize
    BitShift BitwiseAnd
    Softmax LogSoftmax ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceSumSquare ArgMax TopK
    AveragePool MaxPool GlobalAveragePool GlobalMaxPool Dropout
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization
    LpNormalization LRN DynamicQuantizeLinear
"""
_ALIASES = frozenset(_ALIAS_OPS.split())
_UNARY = frozenset(_UNARY_OPS.split())
_FREE = _ALIASES | _UNARY | frozenset(_FREE_OPS.split())


@dataclass(frozen=True)
class Cost:
    """Counted cost of one image through a shipped graph; see the module for what is counted.

    Attributes:
        params: Learned values.
        macs: Multiply-accumulates.
        peak_activation_bytes: Most bytes of activations alive at once.
        ops: MACs by operator.
        unsupported: Operators whose MACs are not known here; empty when the count is complete.
    """

    params: int
    macs: int
    peak_activation_bytes: int
    ops: dict[str, int]
    unsupported: tuple[str, ...] = ()
    planner: str = PLANNER

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "params": self.params,
            "macs": self.macs,
            "peak_activation_bytes": self.peak_activation_bytes,
            "ops": dict(self.ops),
            "unsupported": list(self.unsupported),
            "planner": self.planner,
        }


def count(source: Path | str | bytes) -> Cost:
    """Return the counted cost of an ONNX file (or its bytes) for one image.

    Raises:
        ModelError: Not an ONNX file, or a tensor whose shape cannot be inferred.
    """
    graph = _load(source)
    shapes, kinds = _infer(graph)
    ops, unsupported = _macs(graph, shapes)
    return Cost(
        params=sum(map(_values, learned(graph))),
        macs=sum(ops.values()),
        peak_activation_bytes=_peak(graph, shapes, kinds),
        ops=dict(ops),
        unsupported=unsupported,
    )


def learned(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the learned tensors among the initializers: the weights and biases `params` counts."""
    statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    quantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantized |= {
        node.input[i] for node in graph.node for i in _QUANTIZED_WEIGHTS.get(node.op_type, ()) if i < len(node.input)
    }
    scales = {node.input[i] for node in graph.node for i in _SCALES.get(node.op_type, ()) if i < len(node.input)}
    for tensor in graph.initializer:
        real = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f" or tensor.data_type == _BFLOAT16
        if tensor.name.startswith(NORMALIZE) or tensor.name in statistics or tensor.name in scales:
            continue
        if tensor.name.endswith(PALETTE):
            continue
        single = math.prod(tensor.dims) == 1 and not tensor.name.startswith(NETWORK)
        if tensor.name in quantized or (real and not single) or INDICES in tensor.name:
            yield tensor


def _values(tensor: onnx.TensorProto) -> int:
    """Return how many learned values a tensor stands for; one of palette indices says so in its name."""
    _, packed, count = tensor.name.rpartition(INDICES)
    return int(count) if packed else math.prod(tensor.dims)


_BFLOAT16 = onnx.TensorProto.BFLOAT16
_QUANTIZED_WEIGHTS = {"QLinearConv": (3, 8), "QLinearMatMul": (3,), "ConvInteger": (1,), "MatMulInteger": (1,)}
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}


def _load(source: Path | str | bytes) -> onnx.GraphProto:
    where = "bytes" if isinstance(source, bytes) else str(source)
    try:
        model = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(str(source))
        model = _with_batch_one(_longest_way(model))
        return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=True, data_prop=True).graph
    except FileNotFoundError as error:
        raise ModelError(f"no file {where!r} to count", do="give the path of an .onnx file") from error
    except Exception as error:  # onnx raises protobuf's and its own C++ error types, which share no base
        raise ModelError(
            f"cannot read the graph of {where!r}: {error}", do="give an .onnx file that flyweight export wrote"
        ) from error


def _longest_way(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the longer branch of each `If` in its place: what an image costs that leaves no early exit."""
    graph = model.graph
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        branches = [attribute.g for attribute in node.attribute] if node.op_type == "If" else []
        if not branches:
            graph.node.append(node)
            continue
        longest = max(branches, key=lambda branch: len(branch.node))
        renamed = {given.name: name for given, name in zip(longest.output, node.output, strict=True)}
        for inner in longest.node:
            inner.output[:] = [renamed.get(name, name) for name in inner.output]
            graph.node.append(inner)
        graph.initializer.extend(longest.initializer)
    return model


def _with_batch_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fix every free dimension of the inputs at 1 and forget the shapes inferred for any batch."""
    del model.graph.value_info[:]
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def _infer(graph: onnx.GraphProto) -> tuple[_Shapes, dict[str, int]]:
    """Return the shape of every tensor, and the bytes of one element of it."""
    shapes: _Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kinds: dict[str, int] = {tensor.name: _itemsize(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
            kinds[value.name] = _itemsize(value.type.tensor_type.elem_type)
    made = [name for node in graph.node for name in node.output if name]
    missing = [name for name in made if name not in shapes]
    if missing:
        raise ModelError(
            f"the shape of {len(missing)} tensors of the graph cannot be inferred, first {missing[0]!r}",
            do="export the network with fixed image size; the operators that make these tensors are not supported",
        )
    return shapes, kinds


def _itemsize(kind: int) -> int:
    return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize)


def _macs(graph: onnx.GraphProto, shapes: _Shapes) -> tuple[Counter[str], tuple[str, ...]]:
    ops: Counter[str] = Counter()
    unsupported: set[str] = set()
    for node in graph.node:
        if node.op_type in _MACS:
            ops[node.op_type] += _MACS[node.op_type](node, shapes)
        elif node.op_type not in _FREE:
            unsupported.add(node.op_type)
    return ops, tuple(sorted(unsupported))


def _convolution(weight: int) -> Callable[[onnx.NodeProto, _Shapes], int]:
    def macs(node: onnx.NodeProto, shapes: _Shapes) -> int:
        # The weight is (out, in / groups, kh, kw): each output element takes one MAC per element of its filter.
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weight]][1:])

    return macs


def _transposed(node: onnx.NodeProto, shapes: _Shapes) -> int:
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _product(node: onnx.NodeProto, shapes: _Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: _Shapes) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


_MACS: dict[str, Callable[[onnx.NodeProto, _Shapes], int]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
}


def _peak(graph: onnx.GraphProto, shapes: _Shapes, kinds: dict[str, int]) -> int:
    """Return the most bytes alive at once under `PLANNER`."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # what is made of constants alone, such as weights that are unpacked, is made once
        if all(name in constants for name in node.input if name):
            constants |= set(node.output)
    kinds = _as_integers(graph, kinds)
    buffer_of = {value.name: value.name for value in graph.input if value.name not in constants}
    size = {name: math.prod(shapes[name]) * kinds[name] for name in buffer_of}
    last = _last_uses(graph)
    alive, peak = set(size), sum(size.values())
    end: dict[str, int] = {buffer_of[name]: last.get(name, 0) for name in buffer_of}
    for step, node in enumerate(graph.node):
        for name in (name for name in node.output if name and name not in constants):
            held = buffer_of.get(node.input[0]) if node.input else None
            shared = held is not None and _writes_over(node, name, held, step, shapes, kinds, size, end)
            buffer = held if shared and held is not None else name
            buffer_of[name] = buffer
            size.setdefault(buffer, math.prod(shapes[name]) * kinds[name])
            end[buffer] = max(end.get(buffer, step), last.get(name, step))
            alive.add(buffer)
        peak = max(peak, sum(size[buffer] for buffer in alive))
        alive = {buffer for buffer in alive if end[buffer] > step}
    return peak


def _as_integers(graph: onnx.GraphProto, kinds: dict[str, int]) -> dict[str, int]:
    """Return the bytes of an element where a runtime computes a quantized graph in integers."""
    kinds = dict(kinds)
    readers = Counter(name for node in graph.node for name in node.input)
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            kinds[node.output[0]] = kinds[node.input[0]]
        if node.op_type != "QuantizeLinear":
            continue
        name = node.input[0]
        chain = [name]
        while name in makers and readers[name] == 1 and makers[name].op_type in _UNARY:  # a fused activation
            name = makers[name].input[0]
            chain.append(name)
        if name in makers and readers[name] == 1 and makers[name].op_type in _INTEGER_OPS:
            kinds |= dict.fromkeys(chain, kinds[node.output[0]])
    return kinds


def _writes_over(
    node: onnx.NodeProto,
    name: str,
    held: str,
    step: int,
    shapes: _Shapes,
    kinds: dict[str, int],
    size: dict[str, int],
    end: dict[str, int],
) -> bool:
    if node.op_type in _ALIASES:
        return True
    fits = math.prod(shapes[name]) * kinds[name] == size[held]
    return node.op_type in _UNARY and fits and end[held] <= step


def _last_uses(graph: onnx.GraphProto) -> dict[str, int]:
    last = {name: step for step, node in enumerate(graph.node) for name in node.input}
    return last | {value.name: len(graph.node) for value in graph.output}
