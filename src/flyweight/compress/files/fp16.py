"""Weights kept in 16 bits: half the bytes. The runtime widens them once, when it loads the file, and computes in float.

ONNX Runtime has no half-precision convolutions on processors: a file that asked for them would be converted back and
forth at every layer. So this makes a file smaller, and promises nothing of speed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from flyweight.compress.files.context import FileContext, Made, weights_of
from flyweight.compress.step import Options
from flyweight.errors import CompressError

LARGEST = float(np.finfo(np.float16).max)


class Fp16(Options):
    """Attributes:
    least: Tensors with fewer values stay as they are.
    """

    least: int = Field(default=64, ge=1)


def fp16(context: FileContext, options: Fp16) -> Made:
    """Return the file with its weights in half precision.

    Raises:
        CompressError: A weight is too large for it.
    """
    model = context.model()
    graph = model.graph
    chosen = weights_of(model, options.least)
    nodes: list[onnx.NodeProto] = []
    for tensor in chosen:
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > LARGEST:
            raise CompressError(
                f"fp16: the weights {tensor.name!r} reach {np.abs(values).max():.3g}, more than half precision has",
                do="use palette, or leave this file in fp32",
            )
        name = tensor.name
        half = numpy_helper.from_array(values.astype(np.float16), name + ".half")
        tensor.CopyFrom(half)
        nodes.append(
            helper.make_node("Cast", [name + ".half"], [name], name=f"Widen_{len(nodes)}", to=TensorProto.FLOAT)
        )
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    told = f"{len(chosen)} tensors in half precision, widened when the file is loaded"
    return Made("fp16", content, "fp16", facts={"tensors": len(chosen)}, said=(told,))
