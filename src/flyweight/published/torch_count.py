"""Count named networks, built on torch's meta device: shapes, no values. The only file here with torch.

MACs are convolutions and matrix products, those of attention too, as in models/cost.py.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flyweight.errors import ModelError
from flyweight.models.adapt import adapt_stem, set_channels
from flyweight.models.architecture import Architecture
from flyweight.models.fold import fold_network
from flyweight.models.zoo import find
from flyweight.published.count import Heads, NetCount

TORCHVISION = "torchvision:"


def count_network(name: str, num_classes: int, in_chans: int, image_size: int) -> NetCount:
    """Return what a network of the catalogue, of timm or `torchvision:NAME` costs, with its own stem.

    Raises:
        ModelError: There is no such network, or it cannot take this input.
    """
    network = _build(name, num_classes, in_chans, image_size)
    more = _params(_build(name, num_classes + 1, in_chans, image_size))
    merged, folded, merged_macs = _merged(network, in_chans, image_size)
    params = _params(network)
    return NetCount(
        params=params,
        macs=_macs(network, in_chans, image_size),
        merged_params=merged,
        folded_params=folded,
        merged_macs=merged_macs,
        norms=_norms(network),
        buffers=sum(b.numel() for b in network.buffers()),
        heads=Heads(num_classes, more - params, _default_classes(name)),
    )


def check_name(name: str) -> None:
    """Raise ModelError, with the closest names, unless there is such a network."""
    if not name.startswith(TORCHVISION):
        find(name)
        return
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    short = name.removeprefix(TORCHVISION)
    if short not in known:
        close = [TORCHVISION + found for found in difflib.get_close_matches(short, known, n=3)]
        raise ModelError(
            f"there is no network called {name!r}", do=f"did you mean {', '.join(close) or 'a name of timm'}?"
        )


def relatives(name: str) -> list[str]:
    """Return the networks of timm with the most similar names: what a label could have been mistaken for."""
    import timm

    family = name.rpartition(":")[2].split("_")[0].rstrip("v0123456789")
    known = [other for other in timm.list_models() if other.startswith(family) and other != name]
    return difflib.get_close_matches(name, known, n=8, cutoff=0.5)


def _build(name: str, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    check_name(name)
    with torch.device("meta"):
        if name.startswith(TORCHVISION):
            import torchvision

            bare = torchvision.models.get_model(name.removeprefix(TORCHVISION), num_classes=num_classes)
            network: nn.Module = adapt_stem(set_channels(bare, in_chans), name, in_chans, image_size, min_map=1)
        else:  # min_map 1: never another stem than the published one
            network = Architecture(name, num_classes, in_chans, image_size, args={"min_map": 1}).bare()
    return network.eval()


def _blank(in_chans: int, image_size: int) -> torch.Tensor:
    return torch.zeros(1, in_chans, image_size, image_size, device="meta")


def _params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _norms(network: nn.Module) -> int:
    """Scales and shifts of every normalisation, known by the name of its class."""
    found = [module for module in network.modules() if "norm" in type(module).__name__.lower()]
    return sum(p.numel() for module in found for p in module.parameters(recurse=False))


def _macs(network: nn.Module, in_chans: int, image_size: int) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(_blank(in_chans, image_size))
    return int(counter.get_total_flops()) // 2


def _merged(network: nn.Module, in_chans: int, image_size: int) -> tuple[int, int, int]:
    """Return parameters with branches merged, those with batch norms folded too, and the MACs of the latter."""
    from timm.models import reparameterize_model  # type: ignore[attr-defined,unused-ignore]

    with torch.device("meta"):
        merged: Any = reparameterize_model(network)
        folded = fold_network(network, _blank(in_chans, image_size))
    return _params(merged), _params(folded), _macs(folded, in_chans, image_size)


def _default_classes(name: str) -> int | None:
    """Return the classes of the head that timm builds when it is not told a number."""
    import timm

    try:
        config = timm.get_pretrained_cfg(name.removeprefix("timm:"))
    except (RuntimeError, ValueError):
        return None
    return None if config is None else int(config.num_classes)
