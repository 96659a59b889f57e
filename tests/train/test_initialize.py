"""Each scheme draws what its paper says, for dense, depthwise and residual networks alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flyweight.data.dataset import Dataset
from flyweight.errors import ModelError, RecipeError
from flyweight.models.architecture import Architecture
from flyweight.models.residual import last_norms
from flyweight.train.initialize import fans, initialize
from flyweight.train.recipe import Recipe
from flyweight.train.run import train_and_wait


def begun(name: str, init: str, seed: int = 0, **args: object) -> nn.Module:
    architecture = Architecture(name, 10, 3, 32, args=args)
    torch.manual_seed(seed)
    network = architecture.build()
    initialize(network, init, architecture)  # type: ignore[arg-type]
    return network


def kernels(network: nn.Module, least: int = 2000) -> dict[str, tuple[Tensor, int]]:
    """Return the weights that are large enough for their variance to be known, with their groups."""
    return {
        name: (module.weight.detach(), getattr(module, "groups", 1))
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel() >= least
    }


@pytest.mark.parametrize("name", ["tiny_resnet8_16", "mobilenetv3_small_050", "pool_cnn"])
@pytest.mark.parametrize("init", ["kaiming", "xavier", "trunc_normal"])
def test_the_variance_of_every_large_layer_is_that_of_the_formula(name: str, init: str) -> None:
    found = kernels(begun(name, init))
    assert found
    for layer, (weight, groups) in found.items():
        wide, reach = fans(weight, groups)
        expected = {
            "kaiming": 2 / wide,
            "xavier": 2 / (wide + reach),
            "trunc_normal": 0.02**2 * 0.7737,  # a normal cut at two deviations keeps 77.37 % of its variance
        }[init]
        assert float(weight.var()) == pytest.approx(expected, rel=0.15), layer
        assert abs(float(weight.mean())) < 0.1 * expected**0.5, layer


def test_the_fans_of_a_depthwise_convolution_are_those_of_its_window() -> None:
    assert fans(nn.Conv2d(32, 32, 3, groups=32).weight, 32) == (9, 9)
    assert fans(nn.Conv2d(8, 16, 3).weight, 1) == (72, 144)
    assert fans(nn.Linear(20, 10).weight, 1) == (20, 10)


@pytest.mark.parametrize("name", ["tiny_resnet8_8", "tiny_ds_8"])
def test_orthogonal_filters_have_length_root_two_and_right_angles_within_each_group(name: str) -> None:
    for layer, (weight, groups) in kernels(begun(name, "orthogonal"), least=1).items():
        for part in weight.chunk(groups):
            rows = part.flatten(1)
            rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
            torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(len(rows)), atol=1e-4, rtol=1e-4, msg=layer)


@pytest.mark.parametrize("init", ["kaiming", "xavier", "orthogonal", "trunc_normal"])
def test_biases_are_zero_and_norms_stay_as_they_were_built(init: str) -> None:
    plain, drawn = begun("tiny_resnet8_8", "default"), begun("tiny_resnet8_8", init)
    for (name, one), (_, other) in zip(plain.named_modules(), drawn.named_modules(), strict=True):
        if isinstance(one, nn.BatchNorm2d):
            assert torch.equal(one.weight, other.weight), name  # type: ignore[arg-type]
        if isinstance(other, nn.Linear):
            assert not other.bias.any(), name


def test_the_same_seed_draws_the_same_weights_and_another_seed_others() -> None:
    one, same, other = (begun("tiny_cnn_4", "kaiming", seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_the_last_norms_found_in_the_graph_are_those_that_timm_zeroes_itself(name: str) -> None:
    architecture = Architecture(name, 10, 3, 32)
    network = architecture.build()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    theirs = {id(norm) for norm in norms if not norm.weight.any()}
    assert {id(norm) for norm in last_norms(network, name, architecture.example())} == theirs != set()


@pytest.mark.parametrize(("name", "blocks"), [("tiny_resnet8_8", 3), ("tiny_sep_12", 6), ("mobilenetv2_035", 10)])
def test_with_zero_gamma_every_residual_block_begins_as_its_shortcut(name: str, blocks: int) -> None:
    network, plain = begun(name, "zero_gamma"), begun(name, "default")
    zero = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm2d) and norm.affine]
    assert sum(not norm.weight.any() for norm in zero) == blocks
    weights = dict(plain.named_parameters())
    kept = [torch.equal(value, weights[key]) for key, value in network.named_parameters()]
    assert kept.count(False) == blocks


@pytest.mark.parametrize(
    ("name", "words"), [("tiny_cnn_4", "it has none"), ("convnext_atto", "12 of its 12 end in none")]
)
def test_zero_gamma_is_refused_where_no_branch_ends_in_a_batch_norm(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        begun(name, "zero_gamma")


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"model\.init .*'kaiming'.*value 'he'"):
        Recipe().with_settings(["model.init=he"])


def test_a_scheme_and_pretrained_weights_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="kaiming would be overwritten"):
        Recipe().with_settings(["model.init=kaiming", "model.pretrained=own/net"])


def test_a_scheme_and_a_run_to_begin_with_exclude_each_other(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    first = train_and_wait(few, quick.with_settings(["epochs=1", "model.init=orthogonal"]), tmp_path / "a")
    assert first.recipe.model.init == "orthogonal"
    with pytest.raises(RecipeError, match="from scratch"):
        train_and_wait(few, quick.with_settings(["model.init=xavier"]), tmp_path / "b", initial=first)
