"""The int8 file: integers inside, the network's answers outside, and an error where a runtime would stay in float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from flyweight.errors import ExportError
from flyweight.export import bundle as bundle_module
from flyweight.export.bundle import add_variant, write_bundle
from flyweight.export.onnx import export_untrained, to_onnx
from flyweight.export.parity import check_parity, compare_levels, file_logits, torch_logits
from flyweight.export.qdq import left_in_float
from flyweight.models.architecture import Architecture
from flyweight.models.cost import count
from flyweight.models.quantize import bias_on_grid
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.preprocess import Preprocess
from models.settled import pixels
from models.test_quantize import quantized

CLASSES = ("ant", "bee", "cat", "dog", "eel")
NAMES = ["tiny_cnn_8", "tiny_resnet8_8", "tiny_ds_8", "pool_cnn", "mobilenetv3_small_050", "resnet18"]


@pytest.mark.parametrize("name", NAMES)
def test_the_runtime_computes_every_layer_but_the_last_in_integers_and_answers_as_the_network(
    name: str, tmp_path: Path
) -> None:
    network, architecture = quantized(name)
    path = to_onnx(network, architecture, tmp_path / "int8.onnx")
    assert left_in_float(path) == []
    images = pixels(64, 3, 32, seed=3)
    expected, found = torch_logits(network, images), file_logits(path, images)
    # Biases are rounded to the units of the integer sums, which turns about one level in a hundred; depth adds up.
    most = 0.15 if name in {"mobilenetv3_small_050", "resnet18"} else 0.02
    assert np.abs(expected - found).max() < most * max(1.0, np.abs(expected).max())


def test_weights_are_one_byte_and_counted_as_in_the_float_file(tmp_path: Path) -> None:
    network, architecture = quantized("tiny_resnet8_8")
    path = to_onnx(network, architecture, tmp_path / "int8.onnx")
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) > 1}
    assert onnx.TensorProto.INT8 in kinds
    floating = export_untrained(Architecture("tiny_resnet8_8", 5, 3, 32), tmp_path / "fp32.onnx")
    assert count(path).params == count(floating).params
    assert count(path).macs == count(floating).macs
    assert path.stat().st_size < 0.4 * floating.stat().st_size


def test_a_float_file_is_seen_to_stay_in_float(tmp_path: Path) -> None:
    path = export_untrained(Architecture("tiny_cnn_4", 5, 3, 32), tmp_path / "fp32.onnx")
    assert len(left_in_float(path)) == 4  # every convolution; the dense layer gives the logits


def facts(architecture: Architecture, network: torch.nn.Module) -> dict[str, Any]:
    return {
        "network": network,
        "architecture": architecture,
        "classes": CLASSES,
        "preprocess": Preprocess(32, 3, mean=architecture.mean, std=architecture.std),
        "temperature": 1.0,
        "golden_images": pixels(32, 3, 32),
        "split_rule": {},
        "provenance": {"seed": 1},
        "recipe_yaml": "name: tiny\n",
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("both")
    network, architecture = quantized("tiny_cnn_8")
    plain = replace(architecture, surgery=())
    bundle = write_bundle(folder / "bundle", **facts(plain, plain.build().eval()))
    images = pixels(64, 3, 32)
    more = {"network": network, "architecture": architecture, "parity_images": images, "provenance": {"seed": 2}}
    return add_variant(bundle, folder / "bundle", **more)


def test_a_variant_is_added_to_an_archive(tmp_path: Path) -> None:
    network, architecture = quantized("tiny_cnn_8")
    plain = replace(architecture, surgery=())
    out = tmp_path / "b.zip"
    bundle = write_bundle(out, **facts(plain, plain.build().eval()))
    images = pixels(64, 3, 32)
    add_variant(bundle, out, network=network, architecture=architecture, parity_images=images, provenance={"seed": 2})
    assert out.is_file()
    assert sorted(Bundle.open(out).variants) == ["fp32", "int8"]


def test_a_bundle_holds_both_precisions_and_keeps_its_default(both: Bundle) -> None:
    assert sorted(both.variants) == ["fp32", "int8"]
    assert both.default == "fp32"
    assert both.variant("int8").size_bytes < both.variant("fp32").size_bytes / 2
    assert both.variant("int8").precision == "int8"
    images, expected = both.golden(both.variant("int8"))
    found = file_logits(both.variant("int8").file, images)
    assert np.abs(found - expected).max() <= both.variant("int8").tolerance


def test_the_card_tells_of_both(both: Bundle) -> None:
    card = (both.path / "card.md").read_text()
    assert "### fp32, the default" in card
    assert "### int8" in card
    assert "the int8 file and its trained network differ" in card


def test_other_classes_do_not_become_a_variant(both: Bundle, tmp_path: Path) -> None:
    other = Architecture("tiny_cnn_8", 7, 3, 32, mean=both.preprocess.mean, std=both.preprocess.std)
    with pytest.raises(ExportError, match="5 class names for 7 logits"):
        add_variant(
            both, tmp_path / "b", network=other.build(), architecture=other, parity_images=pixels(8, 3, 32),
            provenance={},
        )  # fmt: skip


def test_an_int8_file_that_the_runtime_would_compute_in_float_does_not_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, architecture = quantized("tiny_cnn_8")
    plain = export_untrained(Architecture("tiny_cnn_8", 5, 3, 32), tmp_path / "fp32.onnx").read_bytes()
    monkeypatch.setattr(bundle_module, "to_onnx", lambda network, architecture, path, metadata: path.write_bytes(plain))
    with pytest.raises(ExportError, match="computes 4 layers of the int8 file of 'tiny_cnn_8' in float"):
        write_bundle(tmp_path / "bundle", **facts(architecture, network))
    assert not (tmp_path / "bundle").exists()


def test_activations_of_the_int8_file_are_counted_as_the_bytes_that_integers_take(tmp_path: Path) -> None:
    network, architecture = quantized("tiny_resnet8_8")
    found = count(to_onnx(network, architecture, tmp_path / "int8.onnx")).peak_activation_bytes
    # At 32 px: normalised float input (3 × 1024 × 4) beside its integers, or three maps of 8 channels in the block.
    assert found == max(3 * 1024 * 5, 3 * 8 * 1024)


def test_an_int8_file_may_differ_by_half_of_what_rounding_does_by_hand() -> None:
    expected = np.array([[2.0, 0.0], [0.0, 2.0]] * 500, np.float32)
    unrounded = expected + np.float32(0.4)
    unrounded[:40] = unrounded[:40, ::-1]  # rounding turns 40 images, so a file may turn 20
    small = compare_levels(expected, expected + np.float32(0.1), unrounded)
    assert small.holds
    assert small.rms_error == pytest.approx(0.1, rel=1e-5)
    assert small.flips_allowed == pytest.approx(20)
    turned = expected.copy()
    turned[:21] = turned[:21, ::-1]
    assert not compare_levels(expected, turned, unrounded).holds
    assert not compare_levels(expected, expected + np.float32(5.0), unrounded).holds


@pytest.mark.parametrize("name", ["tiny_resnet8_8", pytest.param("mobilenetv3_small_050", marks=pytest.mark.slow)])
def test_a_deep_int8_file_agrees_and_one_with_a_wrong_channel_does_not(name: str, tmp_path: Path) -> None:
    network, architecture = quantized(name)
    network = bias_on_grid(network)
    images = pixels(200, 3, 32, seed=3)
    path = to_onnx(network, architecture, tmp_path / "int8.onnx")
    assert check_parity(network, path, images, "int8").holds
    layer = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1)
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original")[:3] *= -1
    with pytest.raises(ExportError, match="half of what rounding to levels does"):
        check_parity(network, path, images, "int8")


def test_biases_on_the_grid_stay_where_they_are() -> None:
    once = bias_on_grid(quantized("tiny_cnn_8")[0])
    twice = bias_on_grid(once)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(once.parameters(), twice.parameters(), strict=True))
