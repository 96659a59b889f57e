"""Operators of ONNX as LiteRT computes them, against ONNX Runtime on the same random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.errors import ExportError
from flyweight.export.convert import convert
from flyweight.export.tflite.convert import CannotWriteError, to_tflite
from flyweight.export.tflite.operators import OPERATORS
from flyweight.runtime.backends import load_backend

CHANNELS, SIDE = 4, 9
RANDOM = np.random.default_rng(0)


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array((RANDOM.standard_normal(shape) / 3).astype(np.float32), name)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.float32(value).reshape(()), name)


def node(op: str, *inputs: str, out: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [out], **attributes)


# What is asked for: nodes from x (N, 4, 9, 9) to y, and constants.
Case = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]
CONV = {"kernel_shape": [3, 3], "strides": [2, 2]}
CASES: dict[str, Case] = {
    "a convolution padded alike on both sides, stride 2": (
        [node("Conv", "x", "w", "b", pads=[1, 1, 1, 1], **CONV)], [tensor("w", 6, 4, 3, 3), tensor("b", 6)]),
    "a convolution padded after, as LiteRT itself would": (
        [node("Conv", "x", "w", pads=[0, 0, 1, 1], kernel_shape=[2, 2], strides=[1, 1])], [tensor("w", 6, 4, 2, 2)]),
    "a dilated convolution": (
        [node("Conv", "x", "w", pads=[2, 2, 2, 2], dilations=[2, 2])], [tensor("w", 6, 4, 3, 3)]),
    "a convolution in two groups": ([node("Conv", "x", "w", group=2)], [tensor("w", 6, 2, 3, 3)]),
    "a depthwise convolution with two filters a channel": (
        [node("Conv", "x", "w", group=4, pads=[1, 1, 1, 1])], [tensor("w", 8, 1, 3, 3)]),
    "a ReLU that the convolution applies itself": (
        [node("Conv", "x", "w", out="c"), node("Relu", "c")], [tensor("w", 6, 4, 1, 1)]),
    "a ReLU of a convolution that others read too": (
        [node("Conv", "x", "w", out="c"), node("Relu", "c", out="r"), node("Sub", "c", "r")],
        [tensor("w", 6, 4, 1, 1)]),
    "a clip to six": ([node("Mul", "x", "k", out="m"), node("Clip", "m", "l", "h")],
                      [number("k", 9), number("l", 0), number("h", 6)]),
    "a clip to other limits": ([node("Clip", "x", "l", "h")], [number("l", -0.2), number("h", 0.4)]),
    "hard-swish": ([node("HardSwish", "x")], []),
    "hard-sigmoid": ([node("HardSigmoid", "x", alpha=1 / 6)], []),
    "hard-sigmoid of another slope": ([node("HardSigmoid", "x", alpha=0.3, beta=0.4)], []),
    "a sigmoid": ([node("Sigmoid", "x")], []),
    "a leaky ReLU": ([node("LeakyRelu", "x", alpha=0.1)], []),
    "a constant per channel": ([node("Add", "x", "c")], [tensor("c", 4, 1, 1)]),
    "a gate per channel": ([node("GlobalAveragePool", "x", out="p"), node("Mul", "x", "p")], []),
    "a largest pool with padding": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], []),
    "a mean pool": ([node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2])], []),
    "a mean pool that counts its padding": (
        [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)], []),
    "a mean over channels": ([node("ReduceMean", "x", "a", keepdims=1)], [ints("a", 1)]),
    "a mean over rows that are gone then": ([node("ReduceMean", "x", "a", keepdims=0)], [ints("a", 2)]),
    "channels put together": ([node("Neg", "x", out="n"), node("Concat", "x", "n", axis=1)], []),
    "channels taken apart": (
        [helper.make_node("Split", ["x", "s"], ["p", "q"], axis=1), node("Concat", "q", "p", axis=1)],
        [ints("s", 1, 3)]),
    "every other column": (
        [node("Slice", "x", "s", "e", "a", "t")], [ints("s", 1), ints("e", 99), ints("a", 3), ints("t", 2)]),
    "channels shuffled": (
        [node("Reshape", "x", "five", out="f"), node("Transpose", "f", out="t", perm=[0, 2, 1, 3, 4]),
         node("Reshape", "t", "four")], [ints("five", -1, 2, 2, 9, 9), ints("four", -1, 4, 9, 9)]),
    "a batch norm": (
        [node("BatchNormalization", "x", "g", "s", "m", "v")],
        [tensor("g", 4), tensor("s", 4), tensor("m", 4), numpy_helper.from_array(np.float32([1, 2, 3, 4]), "v")]),
    "rows and columns of a value": (
        [node("Pad", "x", "p", "v")], [ints("p", 0, 0, 1, 2, 0, 0, 0, 1), number("v", 0.7)]),
    "pixels flattened in the order of ONNX": (
        [node("Flatten", "x", out="f"), node("Gemm", "f", "w", "b", transB=1)], [tensor("w", 5, 324), tensor("b", 5)]),
    "a product": ([node("Flatten", "x", out="f"), node("MatMul", "f", "w")], [tensor("w", 324, 5)]),
    "a softmax": ([node("Flatten", "x", out="f"), node("Softmax", "f", axis=1)], []),
}  # fmt: skip


def graph(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> bytes:
    """Return a file from uint8 images to y, its values flattened to logits (N, K)."""
    before = [helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
              helper.make_node("Mul", ["float", "scale"], ["scaled"]),
              helper.make_node("Sub", ["scaled", "half"], ["x"])]  # fmt: skip
    after = [helper.make_node("Flatten", ["y"], ["logits"])]
    made = helper.make_graph(
        [*before, *nodes, *after],
        "case",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "K"])],
        [*constants, number("scale", 1 / 128), number("half", 1)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("case", CASES)
def test_litert_computes_what_onnx_runtime_does(case: str, tmp_path: Path) -> None:
    content = graph(*CASES[case])
    (tmp_path / "case.onnx").write_bytes(content)
    (tmp_path / "case.tflite").write_bytes(to_tflite(content, {}, "test"))
    images = RANDOM.integers(0, 256, (3, CHANNELS, SIDE, SIDE), np.uint8)
    expected = load_backend("onnxruntime", tmp_path / "case.onnx").run(images)
    backend = load_backend("litert", tmp_path / "case.tflite")
    np.testing.assert_allclose(backend.run(images), expected, atol=2e-5)
    np.testing.assert_allclose(backend.run(images[:1]), expected[:1], atol=2e-5)


def test_the_cases_name_most_operators_that_are_translated() -> None:
    asked = {one.op_type for nodes, _ in CASES.values() for one in nodes} | {"Cast", "Mul", "Sub", "Flatten"}
    alike = {"Abs", "Div", "Dropout", "Exp", "GlobalMaxPool", "Identity", "Max", "Min", "ReduceMax", "ReduceSum",
             "Sqrt", "Squeeze", "Tanh", "Unsqueeze"}  # fmt: skip # one table entry each, written by the same functions
    assert set(OPERATORS) - asked <= alike


@pytest.mark.parametrize(("nodes", "constants", "named"), [
    ([node("Erf", "x")], [], "Erf"),
    ([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], [], "MaxPool.*ceil_mode"),
    ([node("Flatten", "x", out="f"), node("Gemm", "f", "w", alpha=2.0)], [tensor("w", 324, 5)], "Gemm.*alpha"),
])  # fmt: skip
def test_what_litert_has_no_word_for_is_named(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], named: str
) -> None:
    with pytest.raises(CannotWriteError, match=named):
        to_tflite(graph(nodes, constants), {}, "test")


@pytest.mark.slow
def test_a_network_with_gelu_is_refused_with_the_operator_and_the_formats_that_can(tmp_path: Path) -> None:
    """RepViT's GELU is ONNX's Erf, which LiteRT has no operator for; ONNX in another opset expresses it."""
    from flyweight.export.bundle import write_bundle
    from flyweight.models.architecture import Architecture
    from flyweight.runtime.preprocess import Preprocess

    architecture = Architecture("repvit_m0_9", 10, 3, 32)
    preprocess = Preprocess(32, 3, mean=architecture.mean, std=architecture.std)
    bundle = write_bundle(
        tmp_path / "repvit",
        network=architecture.build().eval(),
        architecture=architecture,
        classes=[f"class {i}" for i in range(10)],
        preprocess=preprocess,
        temperature=1.0,
        golden_images=RANDOM.integers(0, 256, (32, 3, 32, 32), np.uint8),
        split_rule={},
        provenance={},
        recipe_yaml="name: none\n",
    )
    with pytest.raises(ExportError, match=r"(?s)LiteRT cannot express the operator Erf.*onnx, openvino"):
        convert(bundle, "litert", tmp_path / "out")
    assert convert(bundle, "openvino", tmp_path / "out").parity.top1_agreement >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "resnet18", "shufflenet_v2_x1_0",
                                  "efficientnet_b0", "ghostnet_100", "repvgg_a0", "pool_cnn"])  # fmt: skip
def test_a_network_of_the_catalogue_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    from flyweight.export.onnx import export_untrained
    from flyweight.models.architecture import Architecture

    file = export_untrained(Architecture(name, 10, 3, 32), tmp_path / "net.onnx")
    (tmp_path / "net.tflite").write_bytes(to_tflite(file.read_bytes(), {}, name))
    images = RANDOM.integers(0, 256, (8, 3, 32, 32), np.uint8)
    expected = load_backend("onnxruntime", file).run(images)
    found = load_backend("litert", tmp_path / "net.tflite").run(images)
    assert np.abs(found - expected).max() <= 1e-3 * max(1.0, float(np.abs(expected).max()))
