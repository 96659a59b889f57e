"""Small ONNX graphs of one kind of operator each, with weights from a seed: uint8 images in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 9, 3, 5


class Maker:
    """Adds nodes to a graph whose last tensor is `self.last`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(7)
        self.last, self.depth = "images", CHANNELS
        self.add("Cast", to=TensorProto.FLOAT)
        self.add("Sub", self.constant(np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1)))
        self.add("Mul", self.constant(np.array([0.016, 0.015, 0.014], np.float32).reshape(1, 3, 1, 1)))

    def constant(self, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, kind: str, *others: str, first: Sequence[str] | None = None, **attributes: object) -> str:
        self.nodes.append(
            helper.make_node(kind, [*(first or [self.last]), *others], [f"t{len(self.nodes)}"], **attributes)
        )
        self.last = self.nodes[-1].output[0]
        return self.last

    def conv(self, out: int, kernel: int = 3, group: int = 1, **attributes: object) -> str:
        shape = (out, self.depth // group, kernel, kernel)
        weight = self.random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        bias = self.random.normal(0, 0.3, out).astype(np.float32)
        self.depth = out
        return self.add("Conv", self.constant(weight), self.constant(bias), group=group, **attributes)

    def head(self) -> onnx.ModelProto:
        self.add("GlobalAveragePool")
        return self.dense(self.depth)

    def dense(self, wide: int) -> onnx.ModelProto:
        self.add("Flatten")
        weight = self.random.normal(0, 1 / np.sqrt(wide), (CLASSES, wide)).astype(np.float32)
        bias = self.random.normal(0, 1, CLASSES).astype(np.float32)
        self.nodes.append(
            helper.make_node("Gemm", [self.last, self.constant(weight), self.constant(bias)], ["logits"], transB=1)
        )
        images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", CHANNELS, SIDE, SIDE])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
        graph = helper.make_graph(self.nodes, "graph", [images], [logits], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def strided() -> onnx.ModelProto:
    """Padding on some sides, strides, gaps, groups, several outputs for each depthwise input."""
    made = Maker()
    made.conv(8, pads=[1, 0, 1, 2], strides=[2, 1])
    made.add("Relu")
    made.conv(8, group=8, pads=[2, 2, 2, 2], dilations=[2, 2])
    made.conv(16, group=8, kernel=1)
    made.conv(6, group=2, auto_pad="SAME_UPPER", strides=[2, 2])
    made.add("Clip", made.constant(np.float32(0)), made.constant(np.float32(6)))
    return made.head()


def squeezed() -> onnx.ModelProto:
    """Residuals, squeeze-and-excitation, hard swish: what MobileNetV3 is made of."""
    made = Maker()
    stem = made.conv(8, pads=[1, 1, 1, 1])
    made.add("HardSwish")
    wide = made.conv(8, group=8, pads=[1, 1, 1, 1])
    made.add("GlobalAveragePool")
    made.conv(4, kernel=1)
    made.add("Relu")
    made.conv(8, kernel=1)
    made.add("HardSigmoid", alpha=1 / 6, beta=0.5)
    made.add("Mul", first=[made.last, wide])
    made.conv(8, kernel=1)
    made.add("Add", first=[stem, made.last])
    made.add("Sigmoid")
    return made.head()


def joined() -> onnx.ModelProto:
    """Splitting, joining, shuffling channels, turning the picture: what ShuffleNetV2 and flips are made of."""
    made = Maker()
    made.conv(8, pads=[1, 1, 1, 1])
    whole = made.last
    halves = [f"half{at}" for at in range(2)]
    made.nodes.append(helper.make_node("Split", [whole], halves, axis=1, num_outputs=2))
    made.last, made.depth = halves[1], 4
    made.conv(4, kernel=1)
    made.add("Concat", first=[halves[0], made.last], axis=1)
    made.depth = 8
    made.add("Reshape", made.constant(np.array([-1, 2, 4, SIDE, SIDE])))
    made.add("Transpose", perm=[0, 2, 1, 3, 4])
    made.add("Reshape", made.constant(np.array([-1, 8, SIDE, SIDE])))
    ends = [made.constant(np.array(values)) for values in ([-1], [-99], [3], [-1])]
    made.add("Slice", *ends)
    made.conv(8, pads=[1, 1, 1, 1])
    made.add("Sub", first=[made.last, whole])
    return made.head()


def pooled() -> onnx.ModelProto:
    """Pools whose padding counts, and does not; a flat picture of more than one pixel."""
    made = Maker()
    made.conv(6, pads=[1, 1, 1, 1])
    made.add("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    made.add("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0], strides=[1, 1])
    made.add("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], count_include_pad=1)
    made.add("LeakyRelu", alpha=0.1)
    return made.dense(6 * 3 * 3)


GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {one.__name__: one for one in (strided, squeezed, joined, pooled)}
