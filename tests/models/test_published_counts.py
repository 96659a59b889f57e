"""Parameters and MACs agree with the figures timm publishes for its networks: within 1 %, or their last printed digit.

timm_published.csv holds rows of the files in github.com/huggingface/pytorch-image-models/tree/main/results that its
`source` names (file@commit): 2 decimals of millions and of 10⁹, at the size and with the head they were counted with
(TinyViT's is that of ImageNet-22k), `folded` where branches were merged before counting. timm counts a norm too, as
fvcore does: 2 for each value through a batch norm, 5 through a layer norm. Here that is added before comparing; what
flyweight calls MACs is convolutions and matrix products alone.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flyweight.models.architecture import Architecture, fold
from flyweight.models.zoo import ZOO

ROWS = list(csv.DictReader((Path(__file__).parent / "timm_published.csv").read_text("utf-8").splitlines()))
QUICK = {"mobilenetv3_small_100", "convnext_atto", "starnet_s050"}
PRINTED = 0.0051  # half of the last printed digit, and what a float adds
# Newer than the files of figures, or counted there with other blocks.
NOT_PUBLISHED = {"efficientnetv2_s"}


def rows() -> list[Any]:
    return [
        pytest.param(row, id=f"{row['name']} {row['form']}", marks=() if row["name"] in QUICK else pytest.mark.slow)
        for row in ROWS
    ]


def test_every_network_of_timm_in_the_catalogue_has_its_row() -> None:
    ours = {entry.name for entry in ZOO.values() if entry.library == "timm"}
    assert ours - {row["name"] for row in ROWS} == NOT_PUBLISHED


@pytest.mark.parametrize("row", rows())
def test_parameters_and_macs_are_those_that_timm_publishes(row: dict[str, str], unfused_attention: None) -> None:
    architecture = Architecture(row["name"], int(row["classes"]), 3, int(row["image_size"]), {"min_map": 1})
    network = architecture.build().eval()
    if row["form"] == "folded":
        network, _ = fold(network, architecture)
    norms = Norms(network)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(architecture.example())
    params = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    gmacs = (flops.get_total_flops() / 2 + norms.count) / 1e9
    for found, published in ((params, float(row["params_millions"])), (gmacs, float(row["gmacs"]))):
        assert abs(found - published) <= max(0.01 * published, PRINTED)


class Norms:
    """What fvcore counts for the norms of a network, added up while it runs."""

    def __init__(self, network: nn.Module) -> None:
        self.count = 0
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_hook(self._add(2))
            elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                module.register_forward_hook(self._add(5))

    def _add(self, each: int) -> Any:
        def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self.count += each * inputs[0].numel()

        return add
