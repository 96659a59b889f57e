"""Two sub-models, their merger, and the layers that freezing counts in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from flyweight.errors import ModelError
from flyweight.export.counted import counted, counted_params
from flyweight.models.adapt import StridedPointwise
from flyweight.models.architecture import Architecture, Normalize, fold
from flyweight.models.dual import DualInput, PointwiseOutput, merge
from flyweight.models.layers import count_from_top, layers, release
from flyweight.train.stages import take_weights

DUAL: tuple[dict[str, Any], ...] = ({"op": "dual"},)
MERGED: tuple[dict[str, Any], ...] = (*DUAL, {"op": "merge", "hidden": 32, "outputs": "logits"})
UNLIKE = ("pool_cnn", "mobilenetv3_small_050", "squeezenet1_1")


def architecture(name: str = "pool_cnn", surgery: tuple[dict[str, Any], ...] = (), **more: Any) -> Architecture:
    return Architecture(name, 10, more.pop("in_chans", 1), more.pop("image_size", 28), surgery=surgery, **more)


@pytest.mark.parametrize(("channels", "size", "params", "macs"), [(1, 28, 14_862, 568_240), (3, 32, 19_622, 1_109_760)])
def test_the_unified_net_has_both_published_totals(channels: int, size: int, params: int, macs: int) -> None:
    unified = architecture(surgery=MERGED, in_chans=channels, image_size=size)
    assert sum(p.numel() for p in unified.build().parameters()) == params
    found = counted(unified).cost
    assert (found.params, found.macs) == (params, macs)


def test_a_single_net_of_equal_parameters_has_the_count_that_the_study_says() -> None:
    assert counted_params(architecture(args={"widths": [16, 37]})) == 14_785


@pytest.mark.parametrize("name", UNLIKE)
def test_each_sub_model_sees_its_own_view_and_gives_its_own_output(name: str) -> None:
    torch.manual_seed(0)
    dual = architecture(name, DUAL, in_chans=3, image_size=32).build()
    assert isinstance(dual, DualInput)
    one, two = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    dual.net.eval()
    dual.training = True
    with torch.no_grad():
        both = dual(torch.cat((one, two), 1))
        assert both.shape == (4, 2, 10)
        torch.testing.assert_close(both[:, 0], dual.net["first"](dual.normalize(one)))
        torch.testing.assert_close(both[:, 1], dual.net["second"](dual.normalize(two)))
        dual.training = False
        mean = dual(one).exp()
    alone = [dual.net[part](dual.normalize(one)).softmax(1) for part in ("first", "second")]
    torch.testing.assert_close(mean, torch.stack(alone).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", UNLIKE)
def test_merging_keeps_the_output_layers_with_their_weights(name: str) -> None:
    torch.manual_seed(0)
    dual = architecture(name, DUAL, in_chans=3, image_size=32).build().eval()
    merged = architecture(name, MERGED, in_chans=3, image_size=32).build().eval()
    take_weights(merged, dual.state_dict())
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        for part in ("first", "second"):
            pixels = dual.normalize(images)
            torch.testing.assert_close(merged.net[part](pixels), dual.net[part](pixels), rtol=1e-4, atol=1e-5)
        assert merged(images).shape == (2, 10)


def test_the_output_layer_becomes_a_one_by_one_convolution() -> None:
    merged = architecture(surgery=MERGED).build()
    found = [module for module in merged.modules() if isinstance(module, PointwiseOutput)]
    assert [tuple(module.weight.shape) for module in found] == [(10, 500, 1, 1)] * 2


@pytest.mark.parametrize("name", UNLIKE)
def test_a_merged_net_reloads_folds_and_counts(name: str) -> None:
    torch.manual_seed(0)
    made = architecture(name, MERGED, in_chans=3, image_size=32)
    again = Architecture.from_json(json.loads(json.dumps(made.to_json())))
    network, copy = made.build().eval(), again.build().eval()
    copy.load_state_dict(network.state_dict())
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    folded, _ = fold(network, made)
    with torch.no_grad():
        assert torch.equal(network(images), copy(images))
        torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-3)


def test_unlike_sub_models_cannot_be_merged() -> None:
    normalize = Normalize((0.5,), (0.5,))
    small, large = (architecture(args={"widths": [width, 20]}).bare() for width in (10, 12))
    with pytest.raises(ModelError, match=r"unlike: '0.weight' is \(10, 1, 3, 3\) in the first and \(12, 1, 3, 3\)"):
        DualInput(normalize, small, large)


def test_a_sub_model_without_an_output_layer_cannot_be_merged() -> None:
    def padded() -> nn.Module:
        return nn.Sequential(nn.Flatten(1), nn.Linear(28 * 28, 7), nn.ConstantPad1d((0, 1), 0.0))

    dual = DualInput(Normalize((0.5,), (0.5,)), padded(), padded())
    with pytest.raises(ModelError, match="gives no 8 classes"):
        merge(dual, torch.zeros(1, 1, 28, 28))


def test_a_merge_without_a_dual_before_it_is_refused() -> None:
    with pytest.raises(ModelError, match="merge is not preceded by dual"):
        architecture(surgery=MERGED[1:]).build()


@pytest.mark.parametrize("name", [*UNLIKE, "convnext_atto", "mobilevitv2_050"])
@pytest.mark.parametrize("surgery", [(), MERGED])
def test_every_parameter_is_in_exactly_one_layer_and_the_last_to_run_is_the_head(
    name: str, surgery: tuple[dict[str, Any], ...]
) -> None:
    made = architecture(name, surgery, in_chans=3, image_size=32)
    network = made.build()
    found = layers(network, made.example())
    held = [param for layer in found for param in layer.params]
    assert sorted(held) == sorted(name for name, _ in network.named_parameters())
    top = {param.shape[0] for name, param in network.named_parameters() if name in found[-1].params}
    assert top == {10}


def test_the_twins_of_a_dual_network_are_one_layer() -> None:
    made = architecture(surgery=MERGED)
    names = [layer.name for layer in layers(made.build(), made.example())]
    assert names == ["net.*.0", "net.*.3", "net.*.7", "net.head.0", "net.head.2"]


def test_only_released_layers_learn() -> None:
    made = architecture("tiny_resnet8_4")
    network = made.build()
    found = layers(network, made.example())
    release(network, found[-2:])
    learn = {name for name, param in network.named_parameters() if param.requires_grad}
    assert learn == {name for layer in found[-2:] for name in layer.params}


def test_layers_are_counted_from_the_top_by_number_or_name() -> None:
    made = replace(architecture("mobilenetv3_small_050", in_chans=3), image_size=32)
    found = layers(made.build(), made.example())
    assert count_from_top(found, 3) == 3
    assert count_from_top(found, "classifier") == 1
    assert count_from_top(found, "blocks.4") > count_from_top(found, "net.blocks.5") > 2


@pytest.mark.parametrize(
    ("wanted", "said"), [(99, "99 of 5 layers"), (0, "0 of 5 layers"), ("haed", "there is no layer 'haed'")]
)
def test_a_wrong_layer_is_refused_with_what_there_is(wanted: int | str, said: str) -> None:
    made = architecture(surgery=MERGED)
    with pytest.raises(ModelError, match=said) as caught:
        count_from_top(layers(made.build(), made.example()), wanted)
    assert "head" in caught.value.do


@pytest.mark.parametrize("width", [4, 8, 16, 24])
@pytest.mark.parametrize("count", [3, 117])
def test_gradients_of_a_narrow_strided_shortcut_are_those_of_float64(width: int, count: int) -> None:
    torch.manual_seed(0)
    made = architecture("tiny_resnet8_8", args={"width": width})
    network = made.build().to(memory_format=torch.channels_last).train()
    exact = made.build().double().train()
    exact.load_state_dict(network.state_dict())
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)
    network(images.to(memory_format=torch.channels_last)).square().mean().backward()
    exact(images).square().mean().backward()
    for (name, mine), wanted in zip(network.named_parameters(), exact.parameters(), strict=True):
        assert mine.grad is not None
        assert wanted.grad is not None
        torch.testing.assert_close(mine.grad.double(), wanted.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_no_narrow_strided_pointwise_convolution_reaches_onednn_in_training() -> None:
    network = architecture("tiny_resnet8_8").build()
    pointwise = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    narrow = [module for module in pointwise if module.stride != (1, 1) and module.in_channels < 16]
    assert narrow
    assert all(isinstance(module, StridedPointwise) for module in narrow)
