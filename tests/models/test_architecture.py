from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from flyweight.errors import ModelError
from flyweight.models.adapt import adapt_stem, trace
from flyweight.models.architecture import Architecture, Normalize, fold
from flyweight.models.fold import fold_network
from flyweight.models.zoo import ZOO, find, names

from .settled import pixels, relative, settle


def test_normalize_is_pixels_over_255_minus_mean_over_std() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2) * 10
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = (images.double() / 255 - torch.tensor(mean).double().reshape(3, 1, 1)) / torch.tensor(std).reshape(
        3, 1, 1
    )
    torch.testing.assert_close(Normalize(mean, std)(images).double(), expected, atol=1e-6, rtol=1e-6)


def test_float_pixels_of_0_to_255_give_the_logits_of_the_same_bytes() -> None:
    network = Architecture("tiny_cnn_4", 3, 1, 28).build().eval()
    images = torch.from_numpy(pixels(2, 1, 28))
    assert torch.equal(network(images), network(images.float()))


def test_the_state_dict_holds_learned_tensors_only() -> None:
    state = Architecture("tiny_cnn_4", 3).build().state_dict()
    assert all(key.startswith("net.") for key in state)


def test_an_architecture_survives_json_with_all_it_says() -> None:
    architecture = Architecture("tiny_cnn_4", 3, 1, 28, {"width": 5, "min_map": 2}, (0.3,), (0.2,)).fold()
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_folding_an_architecture_twice_is_folding_it_once() -> None:
    assert Architecture("tiny_cnn_4", 3).fold().fold().surgery == ({"op": "fold"},)


def test_folding_does_not_touch_the_network_it_is_given() -> None:
    architecture = Architecture("tiny_resnet8_4", 3)
    network = settle(architecture.build())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fold(network, architecture)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_an_unknown_name_is_refused_with_the_closest_names() -> None:
    with pytest.raises(ModelError, match="mobilenetv3_small_100") as caught:
        find("mobilenetv3_smal_100")
    assert "mobilenetv3_smal_100" in caught.value.what


@pytest.mark.parametrize(
    ("name", "first"),
    [("mobilnetv3", "mobilenetv3_"), ("resnet188", "resnet18"), ("mobilenetv2_03", "mobilenetv2_035")],
)
def test_names_of_the_catalogue_are_proposed_first_and_none_twice(name: str, first: str) -> None:
    with pytest.raises(ModelError, match="did you mean") as caught:
        find(name)
    proposed = caught.value.do.removeprefix("did you mean ").partition("?")[0].split(", ")
    assert proposed[0].startswith(first)
    assert len(set(proposed)) == len(proposed) == 4
    assert [close in ZOO for close in proposed] == [True, True, True, False]


def test_any_timm_network_works_by_its_name_with_a_prefix() -> None:
    architecture = Architecture("timm:test_resnet", 5, 2, 48)
    assert architecture.build().eval()(torch.from_numpy(pixels(1, 2, 48))).shape == (1, 5)


def test_a_timm_network_with_position_embeddings_is_built_for_the_image_size() -> None:
    network = Architecture("timm:test_vit", 5, 3, 64).build().eval()
    assert network(torch.from_numpy(pixels(1, 3, 64))).shape == (1, 5)


def test_names_match_a_part_or_a_pattern() -> None:
    assert names("tiny_ds") == names("tiny_ds_*") == ["tiny_ds_8", "tiny_ds_16", "tiny_ds_32", "tiny_ds_64"]
    assert names("*") == list(ZOO)


def test_every_name_of_timm_in_the_catalogue_exists() -> None:
    listed = [entry.name for entry in ZOO.values() if entry.library == "timm"]
    assert [name for name in listed if not timm.is_model(name)] == []


def test_an_input_too_small_for_a_network_is_refused_with_its_size() -> None:
    with pytest.raises(ModelError, match="squeezenet1_1 cannot take 3 × 2 × 2 px"):
        Architecture("squeezenet1_1", 10, 3, 2).build()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"in_chans": 0}, "in_chans is 0"),
        ({"mean": (0.1, 0.2)}, "2 values for 3 channels"),
        ({"std": (0.1, 0.0, 0.1)}, "std is"),
        ({"surgery": ({"op": "melt"},)}, "melt"),
        ({"args": {"width": 4, "wings": 2}}, "wings"),
    ],
)
def test_impossible_values_are_refused_and_quoted(change: dict[str, object], words: str) -> None:
    fields = {"name": "tiny_cnn_4", "num_classes": 3, **change}
    with pytest.raises(ModelError, match=words):
        Architecture(**fields).build()  # type: ignore[arg-type]


def test_json_without_a_name_is_refused() -> None:
    with pytest.raises(ModelError, match="not an architecture"):
        Architecture.from_json({"num_classes": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "surgery": []})


def test_min_map_1_leaves_the_stem_as_published() -> None:
    native = Architecture("resnet10t", 10, 3, 32, {"min_map": 1}).build()
    assert min(shrink.after for shrink in trace(native.net, "resnet10t", 3, 32)) == 1  # type: ignore[arg-type]


def test_large_inputs_keep_the_strides_of_timm() -> None:
    ours = Architecture("lcnet_035", 10, 3, 96).build().net
    theirs = timm.create_model("lcnet_035", num_classes=10)
    strides = [[m.stride for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (ours, theirs)]  # type: ignore[union-attr]
    assert strides[0] == strides[1]


def test_adapting_a_stem_changes_both_arms_of_a_residual_block() -> None:
    class TwoArms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side = nn.Conv2d(3, 4, 3, 2, 1), nn.AvgPool2d(2, 2)
            self.join = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.main(x) + self.join(self.side(x))

    net = adapt_stem(TwoArms(), "two arms", 3, 6, min_map=4)
    assert net(torch.zeros(1, 3, 6, 6)).shape == (1, 4, 6, 6)


def test_pretrained_weights_fit_an_adapted_stem() -> None:
    adapted = Architecture("mobilenetv2_035", 10, 3, 32).build().net
    published = timm.create_model("mobilenetv2_035", num_classes=10)
    adapted.load_state_dict(published.state_dict())  # type: ignore[union-attr]


class _TwiceUsed(nn.Module):
    """The convolution's output is used beside its batch norm: folding it would change the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raw = self.conv(x)
        return self.head((self.norm(raw) + raw).mean((2, 3)))


class _SharedConv(nn.Module):
    """One convolution before two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.conv(self.first(self.conv(x)))).mean((2, 3)))


class _LinearNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(12, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.first(x.flatten(1))))


@pytest.mark.parametrize(("make", "norms_left"), [(_TwiceUsed, 1), (_SharedConv, 2), (_LinearNorm, 0)])
def test_only_a_norm_that_owns_its_layer_is_folded(make: type[nn.Module], norms_left: int) -> None:
    size = 2 if make is _LinearNorm else 8
    network = settle(nn.Sequential(Normalize((0.5,) * 3, (0.5,) * 3), make()), 3, size)
    folded = fold_network(network, torch.zeros(1, 3, size, size))
    images = torch.from_numpy(pixels(4, 3, size))
    with torch.no_grad():
        assert relative(folded(images), network(images)) < 1e-5
    left = [m for m in folded.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(left) == norms_left


def test_a_repvgg_block_folds_into_one_convolution() -> None:
    architecture = Architecture("timm:test_byobnet", 5, 3, 64)
    network = settle(architecture.build(), 3, 64)
    folded, _ = fold(network, architecture)
    images = torch.from_numpy(pixels(2, 3, 64))
    with torch.no_grad():
        assert relative(folded(images), network(images)) < 1e-4
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in network.parameters())


def test_our_own_networks_span_5k_to_a_million_parameters() -> None:
    sizes = [
        sum(p.numel() for p in Architecture(name, 10, 3, 32).build().parameters())
        for name, entry in ZOO.items()
        if entry.library == "flyweight"
    ]
    assert min(sizes) <= 5_000
    assert 1_000_000 <= max(sizes) <= 1_200_000


@pytest.mark.parametrize("name", ["tiny_cnn_8", "tiny_ds_8", "tiny_resnet8_8", "tiny_sep_16"])
@pytest.mark.parametrize("size", [12, 20, 28, 32, 48, 64, 96, 224])
def test_tiny_networks_end_on_a_map_of_3_to_10_pixels(name: str, size: int) -> None:
    network = Architecture(name, 10, 1, size, {"min_map": 1}).build()
    last = trace(network.net, name, 1, size)[-1].after  # type: ignore[arg-type]
    assert 2 <= last <= 10


def test_the_catalogue_and_the_counter_import_without_torch() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, timm=None, torchvision=None)\n"
        "import flyweight.models.zoo, flyweight.models.cost, flyweight.cli.models\n"
        "from flyweight.errors import MissingExtraError\n"
        "try: flyweight.models.zoo.find('no_such_net')\n"
        "except MissingExtraError as error: print(error.do)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'pip install "flyweight[train]"'
