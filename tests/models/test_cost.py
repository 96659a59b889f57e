"""Counts against counts by hand, on graphs made with the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.errors import ModelError
from flyweight.models.cost import count

FLOAT = TensorProto.FLOAT


def _weights(**arrays: np.ndarray) -> list[TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto],
    shape: tuple[int | str, ...] = ("N", 3, 8, 8),
    kind: int = FLOAT,
    opset: int = 18,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ours", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _conv(source: str, name: str, out: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, name], [out], **attributes)


def test_a_convolution_costs_output_positions_times_filters_times_filter_size() -> None:
    model = _model([_conv("x", "w", "y", strides=[2, 2], pads=[1, 1, 1, 1])], _weights(w=_ones(5, 3, 3, 3)))
    cost = count(model)
    assert cost.macs == 4 * 4 * 5 * 27
    assert cost.params == 5 * 27
    assert cost.ops == {"Conv": cost.macs}


def test_a_depthwise_convolution_costs_one_filter_per_channel() -> None:
    model = _model([_conv("x", "w", "y", group=3, pads=[1, 1, 1, 1])], _weights(w=_ones(3, 1, 3, 3)))
    assert count(model).macs == 8 * 8 * 3 * 9


def test_a_transposed_convolution_costs_each_input_times_its_filter() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    assert count(_model([node], _weights(w=_ones(3, 7, 2, 2)))).macs == 8 * 8 * 3 * 7 * 4


def test_gemm_and_matmul_cost_rows_times_columns_times_depth() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Gemm", ["h", "b", "c"], ["y"], transB=1),
    ]
    cost = count(_model(nodes, _weights(a=_ones(6, 5), b=_ones(4, 5), c=_ones(4)), shape=("N", 6)))
    assert cost.ops == {"MatMul": 6 * 5, "Gemm": 5 * 4}
    assert cost.params == 30 + 20 + 4


def test_attention_products_count_without_weights() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    cost = count(_model(nodes, [], shape=("N", 7, 5)))
    assert (cost.macs, cost.params) == (7 * 7 * 5, 0)


def test_normalisation_constants_scalars_and_shapes_are_not_parameters() -> None:
    nodes = [
        helper.make_node("Sub", ["x", "normalize.shift"], ["a"]),
        helper.make_node("Mul", ["a", "half"], ["b"]),
        helper.make_node("Mul", ["b", "gamma"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    weights = _weights(
        **{"normalize.shift": _ones(1, 3, 1, 1)},
        half=np.array(0.5, np.float32),
        gamma=_ones(1, 3, 1, 1),
        shape=np.array([-1, 192]),
    )
    assert count(_model(nodes, weights)).params == 3


def test_a_batch_norm_counts_its_scale_and_shift_but_not_its_statistics() -> None:
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])
    cost = count(_model([node], _weights(s=_ones(3), b=_ones(3), m=_ones(3), v=_ones(3))))
    assert (cost.params, cost.macs) == (6, 0)


def test_a_weight_used_twice_counts_once_and_computes_twice() -> None:
    nodes = [_conv("x", "w", "h"), _conv("h", "w", "y")]
    cost = count(_model(nodes, _weights(w=_ones(3, 3, 1, 1))))
    assert (cost.params, cost.macs) == (9, 2 * 64 * 9)


def test_quantized_weights_count_but_their_scales_do_not() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale", "zero"], ["w"], axis=0),
        _conv("x", "w", "y"),
    ]
    weights = _weights(w8=np.ones((4, 3, 1, 1), np.int8), scale=_ones(4), zero=np.zeros(4, np.int8))
    cost = count(_model(nodes, weights))
    assert (cost.params, cost.macs) == (12, 64 * 12)


def test_an_unknown_operator_is_reported() -> None:
    node = helper.make_node("Einsum", ["x", "x"], ["y"], equation="nchw,nchw->nc")
    assert count(_model([node], [])).unsupported == ("Einsum",)


def test_the_peak_is_the_fullest_moment_with_the_skip_connection_held() -> None:
    nodes = [
        _conv("x", "a", "h"),  # x and h: 3 + 6 channels
        _conv("h", "b", "k"),  # x waits for the sum: 3 + 6 + 3
        helper.make_node("Add", ["k", "x"], ["y"]),  # 3 + 3 + 3
    ]
    cost = count(_model(nodes, _weights(a=_ones(6, 3, 1, 1), b=_ones(3, 6, 1, 1))))
    assert cost.peak_activation_bytes == 4 * 64 * (3 + 6 + 3)


def test_an_activation_writes_over_an_input_that_dies_there_only() -> None:
    relu = helper.make_node("Relu", ["h"], ["r"])
    weights = _weights(a=_ones(6, 3, 1, 1))
    alone = count(_model([_conv("x", "a", "h"), relu, helper.make_node("Identity", ["r"], ["y"])], weights))
    held = count(_model([_conv("x", "a", "h"), relu, helper.make_node("Add", ["r", "h"], ["y"])], weights))
    assert alone.peak_activation_bytes == 4 * 64 * (3 + 6)
    assert held.peak_activation_bytes == 4 * 64 * (6 + 6 + 6)


def test_activations_are_counted_in_the_types_of_the_graph() -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    cost = count(_model([cast], [], kind=TensorProto.UINT8))
    assert cost.peak_activation_bytes == 3 * 64 * (1 + 4)


def test_a_reshape_shares_memory_with_its_input() -> None:
    nodes = [
        _conv("x", "a", "h"),
        helper.make_node("Flatten", ["h"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["y"]),
    ]
    cost = count(_model(nodes, _weights(a=_ones(6, 3, 1, 1), g=_ones(6 * 64, 2))))
    assert cost.peak_activation_bytes == 4 * 64 * (3 + 6)


def test_a_missing_file_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        count(tmp_path / "nowhere.onnx")
    (tmp_path / "photo.onnx").write_bytes(b"\x89PNG not a graph")
    with pytest.raises(ModelError, match=r"photo\.onnx"):
        count(tmp_path / "photo.onnx")
