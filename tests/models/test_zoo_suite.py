"""What every network of the catalogue must do. A new entry of `ZOO` is tested by being listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flyweight.export.onnx import to_onnx, unsettle
from flyweight.export.parity import check_parity
from flyweight.models.adapt import default_min_map, trace
from flyweight.models.architecture import Architecture, fold
from flyweight.models.cost import count
from flyweight.models.zoo import ZOO

from .settled import NORMS, pixels, relative, settle

# One of each kind by default, all of them in the slow run.
HANDFUL = {
    "tiny_cnn_8",
    "tiny_ds_8",
    "tiny_resnet8_8",
    "tiny_sep_16",  # a norm that folds through the next layer
    "mobilenetv3_small_050",  # BatchNormAct2d, squeeze and excitation
    "shufflenet_v2_x0_5",  # torchvision, branches
    "squeezenet1_1",  # no batch norm, ceil-mode pools
    "resnet10t",  # average-pool shortcuts
    "starnet_s050",  # a norm that no convolution feeds
    "convnext_atto",  # layer norm, patch stem
    "fastvit_t8",  # branches to merge
}
FEW = {"tiny_cnn_8", "mobilenetv3_small_050", "shufflenet_v2_x0_5"}
SHAPES = ((28, 1), (64, 3), (32, 4))
LARGE = (224, 3)


def _entries(quick: set[str]) -> list[object]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in ZOO]


every_entry = pytest.mark.parametrize("name", _entries(HANDFUL))
every_exported_entry = pytest.mark.parametrize("name", _entries(FEW))
every_small_shape = pytest.mark.parametrize(("image_size", "channels"), SHAPES)
every_shape = pytest.mark.parametrize(
    ("image_size", "channels"), [*SHAPES, pytest.param(*LARGE, marks=pytest.mark.slow)]
)


@every_entry
@every_small_shape
def test_gives_finite_logits_of_the_right_shape(name: str, image_size: int, channels: int) -> None:
    network = Architecture(name, 7, channels, image_size).build().eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels(2, channels, image_size)))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@every_entry
@every_small_shape
def test_the_last_feature_map_of_a_small_input_keeps_an_eighth_of_it_up_to_four_pixels(
    name: str, image_size: int, channels: int
) -> None:
    network = Architecture(name, 7, channels, image_size).build()
    shrinks = trace(network.net, name, channels, image_size)  # type: ignore[arg-type]
    assert min(shrink.after for shrink in shrinks) >= default_min_map(image_size)


@every_entry
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    network = Architecture(name, 7, 3, 32).build().train()
    network(torch.from_numpy(pixels(4, 3, 32))).square().sum().backward()
    grads = {path: parameter.grad for path, parameter in network.named_parameters()}
    assert [path for path, grad in grads.items() if grad is None or not torch.isfinite(grad).all()] == []
    assert next(iter(grads.values())).abs().max() > 0  # type: ignore[union-attr]


@every_entry
@every_shape
def test_folding_leaves_the_logits_as_they_were(name: str, image_size: int, channels: int) -> None:
    architecture = Architecture(name, 7, channels, image_size)
    network = settle(architecture.build(), channels, image_size)
    images = torch.from_numpy(pixels(3, channels, image_size))
    folded, _ = fold(network, architecture)
    with torch.no_grad():
        assert relative(folded(images), network(images)) < 1e-4


@every_entry
def test_folding_leaves_no_batch_norm_behind_a_convolution(name: str) -> None:
    architecture = Architecture(name, 7, 3, 32)
    folded, _ = fold(settle(architecture.build()), architecture)
    left = [path for path, module in folded.named_modules() if isinstance(module, NORMS)]
    assert left == (["net.norm"] if name.startswith("starnet") else [])


@every_entry
def test_architecture_json_and_a_state_dict_give_the_folded_network_again(name: str) -> None:
    architecture = Architecture(name, 7, 3, 32)
    folded, folded_architecture = fold(settle(architecture.build()), architecture)
    again = Architecture.from_json(json.loads(json.dumps(folded_architecture.to_json()))).build()
    again.load_state_dict(folded.state_dict())
    images = torch.from_numpy(pixels(3, 3, 32))
    with torch.no_grad():
        assert torch.equal(again.eval()(images), folded(images))


@every_entry
def test_one_seed_gives_the_same_weights_twice(name: str) -> None:
    def build() -> nn.Module:
        torch.manual_seed(3)
        return Architecture(name, 7, 3, 32).build()

    first, second = build().state_dict(), build().state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


# Their files hold a table that torch makes of fewer learned values: biases of attention by offset, laid out for each
# pair of pixels; wavelengths of EdgeNeXt's position code, which are computed.
TABLES = ("edgenext_", "efficientvit_m", "tiny_vit_")


@every_exported_entry
def test_the_exported_file_agrees_with_the_network_and_is_counted_like_torch_counts(
    name: str, tmp_path: Path, unfused_attention: None
) -> None:
    architecture = Architecture(name, 7, 3, 32)
    network = settle(unsettle(architecture.build()))
    path = to_onnx(network, architecture, tmp_path / "model.onnx")
    assert check_parity(network, path, pixels(8, 3, 32)).holds

    cost = count(path)
    folded, _ = fold(network, architecture)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        folded(architecture.example())
    assert cost.unsupported == ()
    assert cost.macs == flops.get_total_flops() // 2
    own = sum(parameter.numel() for parameter in folded.parameters())
    extra = cost.params - own
    assert 0 < extra < 0.02 * own if name.startswith(TABLES) else extra == 0
