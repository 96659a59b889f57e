"""A prune step is the whole record: it makes the smaller network of the larger one, and the smaller one reloads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from flyweight.errors import ModelError
from flyweight.models.architecture import Architecture
from flyweight.models.prune import prune_network, prune_step
from models.settled import pixels, settle

torch_pruning = pytest.importorskip("torch_pruning")


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))


def by_hand(network: nn.Sequential) -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    """Return the network without its channels 0 and 2, and where each value lay."""
    made, kept = small(), torch.tensor([1, 3])
    places = {name: torch.arange(v.numel()).reshape(v.shape) for name, v in network.state_dict().items()}
    cut = {name: place[kept] for name, place in places.items() if name[0] in "012" and place.dim()}
    cut["3.weight"], cut["3.bias"] = places["3.weight"][:, kept], places["3.bias"]
    made[0], made[1] = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
    made[2], made[3] = nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 2, 1)
    return made, cut


def test_a_step_takes_out_the_channels_it_was_made_of_and_states_their_number() -> None:
    network = settle_plain(small())
    smaller, kept = by_hand(network)
    step = json.loads(json.dumps(prune_step(network, smaller, kept)))
    found = prune_network(settle_plain(small()), step, "small")
    assert [found[0].out_channels, found[1].num_features, found[2].in_channels, found[2].groups] == [2, 2, 2, 2]
    assert torch.equal(found[0].weight, network[0].weight[[1, 3]])
    assert torch.equal(found[3].weight, network[3].weight[:, [1, 3]])
    assert torch.equal(found[1].running_mean, network[1].running_mean[[1, 3]])
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # of the channels that stay, the maps are those of before
        assert torch.allclose(found[:3].eval()(images), network[:3].eval()(images)[:, [1, 3]], atol=1e-6)


def settle_plain(network: nn.Sequential) -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*network.parameters(), network[1].running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return network


def test_a_step_of_another_network_is_refused() -> None:
    network = settle_plain(small())
    smaller, kept = by_hand(network)
    step = prune_step(network, smaller, kept)
    with pytest.raises(ModelError, match=r"does not fit its tensor '0\.weight'"):
        prune_network(nn.Sequential(nn.Conv2d(3, 5, 3)), step, "other")


NETWORKS = ["tiny_sep_12", "tiny_cnn_8"]
SLOW = ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "squeezenet1_1", "repvgg_a0"]


def test_a_network_that_torch_pruning_cannot_follow_is_refused_with_networks_that_it_can() -> None:
    from flyweight.compress.prune import library, take_out
    from flyweight.errors import CompressError

    shuffled = Architecture("shufflenet_v2_x1_0", 5, 3, 32)
    importance = library().importance.GroupMagnitudeImportance(p=2)
    with pytest.raises(CompressError, match=r"'shufflenet_v2_x1_0' cannot be taken out: ZeroDivisionError"):
        take_out(settle(shuffled.build(), 3, 32), shuffled, 0.5, importance, rounding=4)


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)])
def test_half_the_channels_of_a_network_go_and_it_reloads_with_equal_logits(name: str) -> None:
    from flyweight.compress.prune import extended, library, take_out

    torch.manual_seed(0)
    before = Architecture(name, 5, 3, 32, mean=(0.48, 0.45, 0.41), std=(0.25, 0.25, 0.25))
    network = settle(before.build(), 3, 32)
    importance = library().importance.GroupMagnitudeImportance(p=2)
    made, step = take_out(network, before, 0.5, importance, rounding=4)
    after = Architecture.from_json(json.loads(json.dumps(extended(before, step).to_json())))
    again = after.build().eval()
    again.load_state_dict(made.state_dict())
    images = torch.from_numpy(pixels(4, 3, 32))
    with torch.no_grad():
        expected = made.eval()(images)
        assert torch.equal(again(images), expected)
        # The step on the unpruned weights gives the pruned ones.
        assert torch.equal(before.operate(network, after.surgery).eval()(images), expected)
    fewer = sum(p.numel() for p in made.parameters()) / sum(p.numel() for p in replace(before).build().parameters())
    assert fewer < 0.6
