from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from flyweight import __version__
from flyweight.errors import ExportError, OutputError
from flyweight.export.counted import counted, counted_params
from flyweight.export.onnx import Metadata, export_untrained, onnx_bytes, to_onnx
from flyweight.export.parity import check_parity, compare, torch_logits
from flyweight.models.architecture import Architecture, fold
from flyweight.models.cost import count
from models.settled import pixels, settle

TINY = Architecture("tiny_resnet8_4", 3, 3, 28)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return settle(TINY.build(), 3, 28)


@pytest.fixture(scope="module")
def content(network: nn.Module) -> bytes:
    return onnx_bytes(network, TINY, Metadata(("ant", "bee", "çà"), {"image_size": 28}, {"seed": 7}))


def _session(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_batch_of_bytes_gives_the_logits_of_the_network(network: nn.Module, content: bytes, n: int) -> None:
    images = pixels(n, 3, 28)
    (logits,) = _session(content).run(["logits"], {"images": images})
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, torch_logits(network, images), atol=1e-5)


def test_the_input_is_uint8_images_with_a_free_batch(content: bytes) -> None:
    (entry,) = _session(content).get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("images", "tensor(uint8)", ["N", 3, 28, 28])


def test_the_output_is_float32_logits_with_a_free_batch(content: bytes) -> None:
    (entry,) = _session(content).get_outputs()
    assert (entry.name, entry.type, entry.shape) == ("logits", "tensor(float)", ["N", 3])


def test_the_same_weights_give_the_same_bytes(network: nn.Module, content: bytes) -> None:
    assert onnx_bytes(network, TINY, Metadata(("ant", "bee", "çà"), {"image_size": 28}, {"seed": 7})) == content


def test_a_folded_network_gives_the_same_weights_as_the_network_it_was_folded_from(
    network: nn.Module, content: bytes
) -> None:
    folded, architecture = fold(network, TINY)
    again = onnx_bytes(folded, architecture, Metadata(("ant", "bee", "çà"), {"image_size": 28}, {"seed": 7}))
    weights = [
        [tensor.raw_data for tensor in onnx.load_model_from_string(each).graph.initializer] for each in (content, again)
    ]
    assert weights[0] == weights[1]


def test_the_metadata_says_classes_preprocessing_provenance_and_version(content: bytes) -> None:
    props = _session(content).get_modelmeta().custom_metadata_map
    assert json.loads(props["classes"]) == ["ant", "bee", "çà"]
    assert json.loads(props["preprocess"]) == {"image_size": 28}
    assert json.loads(props["provenance"]) == {"seed": 7}
    assert Architecture.from_json(json.loads(props["architecture"])) == TINY.fold()
    assert props["flyweight"] == __version__


def test_the_graph_is_convolutions_activations_and_a_head_with_nothing_left_to_fold(content: bytes) -> None:
    ops = {node.op_type for node in onnx.load_model_from_string(content).graph.node}
    assert ops == {"Cast", "Sub", "Mul", "Conv", "Relu", "Add", "GlobalAveragePool", "Reshape", "Gemm"}


def test_the_file_is_four_bytes_a_parameter_and_a_few_kilobytes(content: bytes) -> None:
    assert 4 * count(content).params < len(content) < 4 * count(content).params + 6_000


def test_no_weight_is_stored_twice_or_unused(content: bytes) -> None:
    graph = onnx.load_model_from_string(content).graph
    names = [tensor.name for tensor in graph.initializer]
    assert len(names) == len(set(names))
    assert set(names) <= {name for node in graph.node for name in node.input}


def test_exporting_leaves_the_network_as_it_was() -> None:
    network = TINY.build().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    onnx_bytes(network, TINY)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))


def test_exporting_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    onnx_bytes(TINY.build(), TINY)
    assert capfd.readouterr() == ("", "")


def test_an_untrained_network_has_the_graph_and_size_of_a_trained_one(network: nn.Module, tmp_path: Path) -> None:
    trained = onnx.load_model_from_string(onnx_bytes(network, TINY))
    untrained = onnx.load(export_untrained(TINY, tmp_path / "untrained.onnx"))
    assert [node.op_type for node in untrained.graph.node] == [node.op_type for node in trained.graph.node]
    assert [list(t.dims) for t in untrained.graph.initializer] == [list(t.dims) for t in trained.graph.initializer]


def test_exporting_an_untrained_network_does_not_move_the_random_generator(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    export_untrained(TINY, tmp_path / "untrained.onnx")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_small_network_exports_in_under_three_seconds(network: nn.Module) -> None:
    onnx_bytes(network, TINY)  # the first call imports the exporter
    started = time.process_time()
    onnx_bytes(network, TINY)
    assert time.process_time() - started < 3


def test_a_network_that_torch_cannot_trace_is_an_export_error() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = images.float().mean((2, 3)) * self.weight
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="cannot export"):
        onnx_bytes(Branching(), Architecture("tiny_cnn_4", 3, 3, 8))


def test_an_export_that_cannot_be_written_leaves_no_file(tmp_path: Path, network: nn.Module) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        to_onnx(network, TINY, tmp_path / "file" / "model.onnx")
    assert os.listdir(tmp_path) == ["file"]


def test_parity_refuses_a_file_of_other_weights(network: nn.Module, tmp_path: Path) -> None:
    path = to_onnx(TINY.build(), TINY, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="disagrees with the trained network on 8 images"):
        check_parity(network, path, pixels(8, 3, 28))


def test_parity_counts_a_changed_first_class_but_not_a_tie() -> None:
    expected = np.array([[1.0, 0.0], [1.0, 1.0 - 1e-5], [0.0, 2.0]], np.float32)
    tie = np.array([[1.0, 0.0], [1.0 - 1e-5, 1.0], [0.0, 2.0]], np.float32)
    assert compare(expected, tie).holds
    assert compare(expected, expected[:, ::-1]).top1_agreement == pytest.approx(1 / 3)


def test_parity_refuses_logits_that_are_not_numbers() -> None:
    expected = np.zeros((2, 3), np.float32)
    assert not compare(expected, np.full((2, 3), np.nan, np.float32)).holds


def test_the_counted_cost_of_an_untrained_network_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    first = counted(TINY)
    monkeypatch.setattr("flyweight.export.counted.export_untrained", None)  # a second export would fail
    assert counted(TINY) == first
    # By hand: stem, three stages of two convolutions, two shortcuts, head; weights and biases.
    convolutions = [
        (3, 4, 9),
        (4, 4, 9),
        (4, 4, 9),
        (4, 8, 9),
        (8, 8, 9),
        (4, 8, 1),
        (8, 16, 9),
        (16, 16, 9),
        (8, 16, 1),
    ]
    by_hand = sum(wide * out * area + out for wide, out, area in convolutions) + 16 * 3 + 3
    assert first.cost.params == counted_params(TINY) == by_hand
    assert first.size_bytes > 4 * by_hand
