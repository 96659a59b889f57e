"""Build a `.tflite` file tensor by tensor.

LiteRT's convolutions want images as (N, H, W, C); ONNX has (N, C, H, W). So every tensor of four dimensions is kept in
the first order and every other one as ONNX has it; `Graph.plain` brings one of four back where a reshape needs that.
The batch is free: shapes are those of one image, with a signature that says so.
Source: LiteRT's schema, as `ai_edge_litert.schema_py_generated` ships it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # permutations between the two orders
_KINDS = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
Shape = tuple[int, ...]


class Graph:
    """A file in the making. Tensors are numbers; `shapes` are those of the tensors as they lie in the file."""

    def __init__(self) -> None:
        self.shapes: dict[int, Shape] = {}
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # the first one is empty by definition
        self._operators: list[Any] = []
        self._codes: list[Any] = []
        self._known: dict[bytes, int] = {}

    def tensor(self, name: str, shape: Sequence[int], kind: Any = np.float32) -> int:
        """Return a new tensor that an operator will fill, or the caller; its first dimension is the batch."""
        number = self._add(name, tuple(shape), np.dtype(kind), 0)
        self._tensors[number].shapeSignature = [-1, *shape[1:]]
        return number

    def constant(self, values: NDArray[Any] | np.generic, name: str = "") -> int:
        """Return a tensor of fixed values; equal ones are stored once."""
        values = np.asarray(values)
        key = str((values.dtype, values.shape)).encode() + values.tobytes()
        if key not in self._known:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self._buffers.append(buffer)
            text = name or f"constant_{len(self._buffers)}"
            self._known[key] = self._add(text, values.shape, values.dtype, len(self._buffers) - 1)
        return self._known[key]

    def _add(self, name: str, shape: Shape, kind: np.dtype[Any], buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), _KINDS[kind], buffer
        self._tensors.append(tensor)
        self.shapes[len(self._tensors) - 1] = shape
        return len(self._tensors) - 1

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        name: str,
        shape: Sequence[int],
        options: tuple[str, Mapping[str, Any]] | None = None,
        *,
        kind: Any = np.float32,
    ) -> int:
        """Return the tensor that a new operator gives.

        Args:
            code: In `BuiltinOperator`.
            options: In `BuiltinOptions`, with their values.
        """
        output = self.tensor(name, shape, kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, code))
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
            operator.builtinOptions = getattr(schema, f"{options[0]}T")()
            for key, value in options[1].items():
                setattr(operator.builtinOptions, key, value)
        self._operators.append(operator)
        return output

    def more_outputs(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> list[int]:
        """Give the last operator further outputs, and return them."""
        added = [self.tensor(name, shape) for name, shape in zip(names, shapes, strict=True)]
        self._operators[-1].outputs = [*self._operators[-1].outputs, *added]
        return added

    def _code(self, builtin: int) -> int:
        for place, code in enumerate(self._codes):
            if code.builtinCode == builtin:
                return place
        code = schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, 127)  # what readers of the first schema look at
        code.version = 1
        self._codes.append(code)
        return len(self._codes) - 1

    def transpose(self, tensor: int, order: Sequence[int], name: str) -> int:
        """Return the tensor with its dimensions in another order."""
        shape = [self.shapes[tensor][i] for i in order]
        wanted = self.constant(np.array(order, np.int32))
        return self.operator("TRANSPOSE", [tensor, wanted], name, shape, ("TransposeOptions", {}))

    def reshape(self, tensor: int, shape: Sequence[int], name: str) -> int:
        """Return the tensor in another shape; the first dimension stays the batch."""
        free = [-1, *shape[1:]]
        wanted = self.constant(np.array(free, np.int32))
        return self.operator("RESHAPE", [tensor, wanted], name, shape, ("ReshapeOptions", {"newShape": free}))

    def plain(self, tensor: int, name: str) -> int:
        """Return a tensor in the order that ONNX has: (N, C, H, W) where there are four dimensions."""
        shape = self.shapes[tensor]
        if len(shape) != 4:
            return tensor
        if shape[1] == shape[2] == 1:  # the values lie in that order already
            return self.reshape(tensor, (shape[0], shape[3], 1, 1), f"{name}_plain")
        return self.transpose(tensor, TO_FIRST, f"{name}_plain")

    def blocked(self, tensor: int, name: str) -> int:
        """Return a tensor that is in ONNX's order as this file keeps it."""
        shape = self.shapes[tensor]
        if len(shape) != 4:
            return tensor
        if shape[2] == shape[3] == 1:
            return self.reshape(tensor, (shape[0], 1, 1, shape[1]), f"{name}_last")
        return self.transpose(tensor, TO_LAST, f"{name}_last")

    def to_bytes(self, given: int, found: int, texts: Mapping[str, str], description: str) -> bytes:
        """Return the file, with one input, one output and texts as its metadata."""
        subgraph = schema.SubGraphT()
        subgraph.name, subgraph.tensors, subgraph.operators = "main", self._tensors, self._operators
        subgraph.inputs, subgraph.outputs = [given], [found]
        model = schema.ModelT()
        model.version, model.description = 3, description
        model.operatorCodes, model.subgraphs, model.buffers = self._codes, [subgraph], self._buffers
        model.metadata = [self._metadata(key, texts[key]) for key in sorted(texts)]
        model.signatureDefs = [_signature(self._tensors, given, found)]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _metadata(self, name: str, text: str) -> Any:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        self._buffers.append(buffer)
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(self._buffers) - 1
        return entry


def _signature(tensors: Sequence[Any], given: int, found: int) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_mapped(tensors, given)], [_mapped(tensors, found)]
    return signature


def _mapped(tensors: Sequence[Any], number: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = tensors[number].name, number
    return entry
