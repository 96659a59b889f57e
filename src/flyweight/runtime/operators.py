"""In what type each operator of a model file is really computed, as the runtime has fused and placed it.

A converter that stays in float says nothing, and a file of int8 weights may be computed in float throughout. So the
runtime is asked: ONNX Runtime for its optimized graph, OpenVINO for the graph it executes. LiteRT computes in what its
file says.

What multiplies weights in float is always listed by name. What gives the logits is listed too, and is no reason to
refuse an int8 file, since its values are levels of nothing; unless nothing else multiplies weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from flyweight.runtime.backends import DEFAULT, import_backend
from flyweight.runtime.optimized import optimized

# What multiplies weights: where an int8 file that stays in float loses what it promised. In ONNX, by the input that
# holds the weights; a product of two maps has none there.
_ONNX = {
    "Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvTranspose": 1, "Gemm": 1, "FusedGemm": 1, "MatMul": 1,
    "FusedMatMul": 1, "ConvInteger": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1,
    "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3,
}  # fmt: skip
_OPENVINO_HEAVY = ("Convolution", "FullyConnected", "MatMul", "Deconvolution")
_LITERT_HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV")
_INTEGER = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
_FLOATS = ("fp32", "fp16", "bf16")
# What stands between the layer that gives the logits and the logits, in the three runtimes.
_PASSING = {
    "Reshape", "Squeeze", "Flatten", "Add", "Mul", "Div", "Cast", "DequantizeLinear",
    "Eltwise", "Convert", "Reorder", "Subgraph", "Output", "Result",
    "RESHAPE", "SQUEEZE", "ADD", "MUL", "DIV", "DEQUANTIZE", "CAST",
}  # fmt: skip
_NAMES = {
    onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8", onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64", onnx.TensorProto.BOOL: "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """One operator as it runs.

    Attributes:
        name: In the graph.
        op: Its kind.
        dtype: What it computes in: fp32, bf16, int8, …
        heavy: It multiplies weights.
        weight: The tensor of weights that it reads; "" where the runtime does not say.
        gives_logits: What it gives is only reshaped, added to and scaled before it leaves the file.
    """

    name: str
    op: str
    dtype: str
    heavy: bool = False
    weight: str = ""
    gives_logits: bool = False

    def __str__(self) -> str:
        """Return kind and name."""
        return f"{self.op}({self.name})"


def operators(file: Path, backend: str) -> tuple[Operator, ...]:
    """Return every operator of a model file with the type it is computed in; () where the backend does not say.

    Raises:
        BundleError: The backend cannot load the file.
    """
    ask = INSPECTORS.get(backend)
    return () if ask is None else ask(Path(file))


def computed(found: tuple[Operator, ...]) -> dict[str, int]:
    """Return how many operators are computed in each type."""
    return dict(Counter(one.dtype for one in found).most_common())


def heavy_in_float(found: Collection[Operator]) -> tuple[str, ...]:
    """Return what multiplies weights in float, by kind and name."""
    return tuple(str(one) for one in found if one.heavy and one.dtype in _FLOATS)


def left_in_float(found: Collection[Operator], meant: Collection[str] = ()) -> tuple[str, ...]:
    """Return what multiplies weights in float and neither gives the logits nor was meant to stay, by kind and name.

    Args:
        meant: Layers that were meant to: each by its name, by kind and name, or by the tensor of its weights.
    """
    return tuple(
        str(one)
        for one in found
        if one.heavy and one.dtype in _FLOATS and not one.gives_logits
        if not {one.name, str(one), one.weight} & set(meant)
    )


def _back_from(outputs: Sequence[str], makers: Mapping[str, tuple[str, Sequence[str]]]) -> set[str]:
    """Return the outputs of a graph and the tensors that only passing operators make them of.

    Args:
        makers: Kind and inputs of what makes a tensor, by its name.
    """
    found: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        found.add(name)
        kind, inputs = makers.get(name, ("", ()))
        if kind in _PASSING:
            waiting.extend(one for one in inputs if one not in found)
    return found


def _by_onnxruntime(file: Path) -> tuple[Operator, ...]:
    graph = optimized(file).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    return tuple(_walk(graph, types, set()))


def _walk(graph: onnx.GraphProto, types: dict[str, int], constants: set[str]) -> list[Operator]:
    """Return the operators of a graph and of its branches.

    Args:
        types: Of the tensors known so far; what the graph makes is added.
        constants: Tensors outside the graph that hold weights.
    """
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = constants | {tensor.name for tensor in graph.initializer}
    last = _back_from(
        [value.name for value in graph.output],
        {name: (node.op_type, node.input) for node in graph.node for name in node.output},
    )
    found = []
    for node in graph.node:
        kind = _computes_in(node, types)
        types |= dict.fromkeys(node.output, _gives(node, types, kind))
        if node.input and constants.issuperset(name for name in node.input if name):
            constants |= set(node.output)  # such as weights out of their levels
        at = _ONNX.get(node.op_type, len(node.input))
        weight = node.input[at] if len(node.input) > at and node.input[at] in constants else ""
        found.append(
            Operator(
                node.name or node.output[0],
                node.op_type,
                _NAMES.get(kind, str(kind)),
                heavy=bool(weight),
                weight=weight,
                gives_logits=node.output[0] in last,
            )
        )
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _walk(attribute.g, dict(types), constants)
    return found


def _computes_in(node: onnx.NodeProto, types: dict[str, int]) -> int:
    if node.op_type.startswith(_INTEGER):
        return int(onnx.TensorProto.UINT8)
    first = next((types[name] for name in node.input if name in types), onnx.TensorProto.FLOAT)
    return int(first)


def _gives(node: onnx.NodeProto, types: dict[str, int], kind: int) -> int:
    """Return the type of what a node gives."""
    if node.op_type == "DequantizeLinear":
        return int(types.get(node.input[1], onnx.TensorProto.FLOAT))
    if node.op_type == "QuantizeLinear":
        return int(types.get(node.input[2], onnx.TensorProto.UINT8)) if len(node.input) > 2 else onnx.TensorProto.UINT8
    if node.op_type == "Cast":
        return int(next(attribute.i for attribute in node.attribute if attribute.name == "to"))
    if node.op_type in {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or", "Not"}:
        return int(onnx.TensorProto.BOOL)
    if node.op_type == "Where":
        return int(types.get(node.input[1], kind))
    if node.op_type in {"ConvInteger", "MatMulInteger"}:
        return int(onnx.TensorProto.INT32)
    return kind


def _by_openvino(file: Path) -> tuple[Operator, ...]:
    import_backend("openvino")  # or says what to install
    from flyweight.runtime.backends.openvino import compiled

    ordered = compiled(file, 1).get_runtime_model().get_ordered_ops()
    facts: dict[str, Mapping[str, Any]] = {one.get_friendly_name(): one.get_rt_info() for one in ordered}
    kinds = {name: str(known["layerType"].astype(str)) for name, known in facts.items()}
    makers = {
        one.get_friendly_name(): (
            kinds[one.get_friendly_name()],
            [value.get_node().get_friendly_name() for value in one.input_values()],
        )
        for one in ordered
    }
    last = _back_from([name for name, kind in kinds.items() if kind in {"Output", "Result"}], makers)
    found = []
    for name, kind in kinds.items():
        runs = str(facts[name]["runtimePrecision"].astype(str))
        if kind not in _OUTSIDE:
            heavy = kind in _OPENVINO_HEAVY
            found.append(Operator(name, kind, _OPENVINO.get(runs, runs), heavy=heavy, gives_logits=name in last))
    return tuple(found)


def _by_litert(file: Path) -> tuple[Operator, ...]:
    import_backend("litert")  # or says what to install
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(file.read_bytes()), 0)
    ops = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    kinds = [ops[model.operatorCodes[one.opcodeIndex].builtinCode] for one in graph.operators]
    makers = {
        names[one.outputs[0]]: (kind, [names[at] for at in one.inputs if at >= 0])
        for one, kind in zip(graph.operators, kinds, strict=True)
    }
    last = _back_from([names[at] for at in graph.outputs], makers)
    found = []
    for one, kind in zip(graph.operators, kinds, strict=True):
        runs, name = types[graph.tensors[one.inputs[0]].type], names[one.outputs[0]]
        heavy = kind in _LITERT_HEAVY
        found.append(Operator(name, kind, _LITERT.get(runs, runs), heavy=heavy, gives_logits=name in last))
    return tuple(found)


_LITERT = {"float32": "fp32", "float16": "fp16", "uint8": "int8"}
_OUTSIDE = {"Input", "Output", "Const", "Constant", "Parameter", "Result"}
_OPENVINO = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8", "i32": "int32", "i64": "int64"}

# By backend; one that cannot say is not here.
INSPECTORS: dict[str, Callable[[Path], tuple[Operator, ...]]] = {
    DEFAULT: _by_onnxruntime,
    "openvino": _by_openvino,
    "litert": _by_litert,
}
