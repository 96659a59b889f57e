"""In what type each operator of a model file is really computed, as the runtime has fused and placed it.

A converter that stays in float says nothing, and a file of int8 weights may be computed in float throughout. So the
runtime is asked: ONNX Runtime for its optimized graph, OpenVINO for the graph it executes. LiteRT computes in what its
file says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from flyweight.runtime.backends import DEFAULT, import_backend
from flyweight.runtime.optimized import optimized

# What multiplies weights: where an int8 file that stays in float loses what it promised.
_HEAVY = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose", "NhwcFusedConv"}
_NAMES = {
    onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8", onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64", onnx.TensorProto.BOOL: "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """One operator as it runs: its name in the graph, its kind, and the type it computes in (fp32, bf16, int8, …)."""

    name: str
    op: str
    dtype: str

    @property
    def heavy(self) -> bool:
        """True for what multiplies weights."""
        return (
            self.op in _HEAVY
            or self.op.startswith(("QLinearConv", "QLinearMatMul", "QGemm", "Convolution"))
            or (
                self.op
                in {"FullyConnected", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger", "MatMulInteger"}
                or self.op in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
            )
        )


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


def heavy_in_float(found: tuple[Operator, ...]) -> tuple[str, ...]:
    """Return the names of what multiplies weights in float."""
    return tuple(f"{one.op}({one.name})" for one in found if one.heavy and one.dtype in {"fp32", "fp16", "bf16"})


def _by_onnxruntime(file: Path) -> tuple[Operator, ...]:
    graph = optimized(file).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    return tuple(_walk(graph, types))


def _walk(graph: onnx.GraphProto, types: dict[str, int]) -> list[Operator]:
    found = []
    for node in graph.node:
        kind = _computes_in(node, types)
        given = _gives(node, types, kind)
        types |= dict.fromkeys(node.output, given)
        found.append(Operator(node.name or node.output[0], node.op_type, _NAMES.get(kind, str(kind))))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = types | {tensor.name: tensor.data_type for tensor in attribute.g.initializer}
                found += _walk(attribute.g, inner)
    return found


def _computes_in(node: onnx.NodeProto, types: dict[str, int]) -> int:
    if node.op_type.startswith(("QLinear", "QGemm")) or node.op_type in {"ConvInteger", "MatMulInteger"}:
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

    found = []
    for one in compiled(file, 1).get_runtime_model().get_ordered_ops():
        facts: Mapping[str, Any] = one.get_rt_info()
        kind, runs = (facts[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind not in _OUTSIDE:
            found.append(Operator(one.get_friendly_name(), kind, _OPENVINO.get(runs, runs)))
    return tuple(found)


def _by_litert(file: Path) -> tuple[Operator, ...]:
    import_backend("litert")  # or says what to install
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(file.read_bytes()), 0)
    ops = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    graph = model.subgraphs[0]
    found = []
    for one in graph.operators:
        runs = types[graph.tensors[one.inputs[0]].type]
        name = graph.tensors[one.outputs[0]].name.decode()
        found.append(Operator(name, ops[model.operatorCodes[one.opcodeIndex].builtinCode], _LITERT.get(runs, runs)))
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
