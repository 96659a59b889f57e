"""The layers of any network, in the order in which they run: what freezing and unfreezing count in."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.models.adapt import evaluating

_BLOCK = re.compile(r"(.*?\.\d+(?:\.\d+)*)\.")
_TWIN = re.compile(r"^net\.(first|second)\.")


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer with all that belongs to it (its norm, scale, bias).

    Attributes:
        name: Path of the convolution or dense layer; `net.*.` stands for both sub-models of a dual network, whose
            layers are one layer here.
        params: Paths of the parameters.
    """

    name: str
    params: tuple[str, ...]


def layers(network: nn.Module, example: Tensor) -> list[Layer]:
    """Return the layers of a network, the first to run first. Every parameter is in exactly one.

    Args:
        example: One input, (1, C, S, S); its values do not matter.
    """
    order = _order(network, example)
    found: dict[str, list[str]] = {}
    place: dict[str, str] = {}  # module path: layer
    now = ""
    for path in order:
        if isinstance(network.get_submodule(path), (nn.Conv2d, nn.Conv1d, nn.Linear)) or not now:
            now = _TWIN.sub("net.*.", path)
        found.setdefault(now, [])
        place[path] = now
    before = next(iter(found), "")
    for name, _ in network.named_parameters():
        before = place.get(name.rpartition(".")[0], before)  # one that never ran goes with the one before it
        found.setdefault(before, []).append(name)
    return [Layer(name, tuple(params)) for name, params in found.items() if params]


def blocks(network: nn.Module) -> list[tuple[str, ...]]:
    """Return the paths of all parameters by block, in the order in which the network defines them.

    A block is what shares the path up to its first numbers: `net.blocks.2.0`, `net.layer1.0`, `net.features.3`, or one
    module outside of any: `net.conv_stem`. What holds vectors alone (a norm) belongs to the block before it.
    """
    found: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        match = _BLOCK.match(name)
        found.setdefault(match[1] if match else name.rpartition(".")[0], []).append(name)
    merged: list[list[str]] = []
    for names in found.values():
        if merged and all(network.get_parameter(name).ndim <= 1 for name in names):
            merged[-1] += names
        else:
            merged.append(names)
    return [tuple(names) for names in merged]


def release(network: nn.Module, kept: list[Layer]) -> None:
    """Let the parameters of these layers learn, and none else."""
    learn = {name for layer in kept for name in layer.params}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learn)


def count_from_top(found: list[Layer], wanted: int | str) -> int:
    """Return how many layers, from the last to run, `wanted` means: a number, or the layer (or block) to begin at.

    Raises:
        ModelError: There is no such layer.
    """
    if isinstance(wanted, int):
        if 1 <= wanted <= len(found):
            return wanted
        raise ModelError(
            f"unfreeze: {wanted} of {len(found)} layers",
            do=f"choose 1 (the last layer, {found[-1].name}) to {len(found)} (all)",
        )
    for index, layer in enumerate(found):
        if _within(layer.name, wanted) or _within(layer.name, f"net.{wanted}"):
            return len(found) - index
    names = [layer.name.removeprefix("net.") for layer in found]
    blocks = sorted({name.rpartition(".")[0] for name in names} - {""})
    close = difflib.get_close_matches(wanted, [*names, *blocks], n=3, cutoff=0.3) or names[-3:]
    raise ModelError(
        f"unfreeze: there is no layer {wanted!r} among {len(found)}",
        do=f"choose e.g. {', '.join(close)}, or a number from 1 to {len(found)}",
    )


def _within(name: str, block: str) -> bool:
    return name == block or name.startswith(block + ".")


def _order(network: nn.Module, example: Tensor) -> list[str]:
    """Return the paths of the modules that hold parameters of their own, as they first run."""
    order: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, inputs, path=path: order.setdefault(path))
        for path, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    with evaluating(network), torch.no_grad():
        network(example)
    for handle in handles:
        handle.remove()
    return list(order)
