"""A quantized network computes on levels, trains, reloads, and sits in the file as integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.models.architecture import Architecture
from flyweight.models.quantize import QuantizedWeight, Quantizer, quantize_network, weight_scale
from models.settled import pixels, settle

NAMES = [
    "tiny_cnn_4",
    "tiny_sep_12",
    "tiny_resnet8_4",
    "tiny_ds_8",
    "pool_cnn",
    "mobilenetv3_small_050",
    "squeezenet1_1",
    "resnet18",
]


def quantized(name: str, side: int = 32) -> tuple[nn.Module, Architecture]:
    torch.manual_seed(0)
    # Not a mean of 0.5: every pixel would then lie half-way between two levels, where libraries round either way.
    before = Architecture(name, 5, 3, side, mean=(0.48, 0.45, 0.41), std=(0.25, 0.25, 0.25))
    network, after = settle(before.build(), 3, side).eval(), before.quantize()
    network = before.operate(network, after.surgery)
    network.train()
    for _ in range(3):
        network(torch.from_numpy(pixels(8, 3, side)))
    return network.eval(), after


@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_network_reloads_from_its_architecture_with_equal_logits(name: str) -> None:
    network, architecture = quantized(name)
    again = Architecture.from_json(architecture.to_json()).build().eval()
    again.load_state_dict(network.state_dict())
    images = torch.from_numpy(pixels(8, 3, 32))
    assert torch.equal(again(images), network(images))


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_reads_levels_and_holds_levels(name: str) -> None:
    network, _ = quantized(name)
    read: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_pre_hook(lambda module, inputs, path=path: read.__setitem__(path, inputs[0]))
    network(torch.from_numpy(pixels(4, 3, 32)))
    assert read
    for path, given in read.items():
        assert len(given.unique()) <= 256, path
        weight = network.get_submodule(path).weight
        assert max(len(row.unique()) for row in weight.flatten(1)) <= 255, path


def test_levels_of_activations_are_those_of_integer_arithmetic() -> None:
    quantizer = Quantizer().train()
    x = torch.linspace(-1.0, 3.0, 1001)
    quantizer(x)
    scale, zero_point = 4.0 / 255, round(1.0 / (4.0 / 255))
    levels = np.clip(np.round(x.numpy().astype(np.float64) / scale) + zero_point, 0, 255)
    found = quantizer.eval()(x).numpy()
    off = np.abs(found - (levels - zero_point) * scale)
    assert np.quantile(off, 0.99) < 1e-6  # a value between two levels may go either way in float32
    assert off.max() < 1.01 * scale


def test_the_largest_weight_of_each_channel_is_a_level() -> None:
    weight = torch.tensor([[0.5, -2.0, 1.0], [0.01, 0.02, -0.03]])
    found = QuantizedWeight()(weight)
    assert torch.allclose(found[:, 1:2][:1], torch.tensor([[-2.0]]))
    assert torch.allclose(weight_scale(weight), torch.tensor([2.0 / 127, 0.03 / 127]))
    assert (found - weight).abs().max() <= weight_scale(weight).max() / 2 + 1e-9


def test_gradients_pass_the_levels() -> None:
    network, _ = quantized("tiny_resnet8_4")
    network.train()(torch.from_numpy(pixels(8, 3, 32))).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y if bool(y.sum() > 0) else -y


def test_a_network_that_branches_on_values_is_refused_with_what_to_do() -> None:
    network = nn.Sequential()
    network.add_module("normalize", nn.Identity())
    network.add_module("net", Branching())
    with pytest.raises(ModelError, match="cannot be traced") as caught:
        quantize_network(network, "branching")
    assert "tiny family" in caught.value.do


def test_a_layer_to_keep_that_is_not_there_is_refused() -> None:
    architecture = Architecture("tiny_cnn_4", 5, 3, 32).quantize(keep_float=["stem"])
    with pytest.raises(ModelError, match="no layer 'stem' to keep in float"):
        architecture.build()


def test_quantizing_before_folding_is_refused() -> None:
    wrong = Architecture("tiny_cnn_4", 5, 3, 32, surgery=({"op": "dual"}, {"op": "quantize"}))
    with pytest.raises(ModelError, match="not preceded by fold"):
        wrong.build()
