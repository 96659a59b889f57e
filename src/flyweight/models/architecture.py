"""`Architecture`: everything but the weights that is needed to build a network again, as JSON."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.models.adapt import adapt_stem, default_min_map, spare_onednn
from flyweight.models.dual import DualInput, merge
from flyweight.models.exits import add_exit
from flyweight.models.fold import fold_network
from flyweight.models.mirror import Mirrored
from flyweight.models.prune import prune_network
from flyweight.models.quantize import quantize_network
from flyweight.models.zoo import find


class Normalize(nn.Module):
    """The first layer of every network: pixels 0..255 of any dtype to `(x / 255 - mean) / std`, float32."""

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        shape = (1, len(mean), 1, 1)
        # Not persistent: they belong to the architecture, and a state dict holds learned tensors only.
        self.register_buffer("shift", torch.tensor(mean).mul(255).reshape(shape), persistent=False)
        self.register_buffer("scale", torch.tensor(std).mul(255).reciprocal().reshape(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised float images (N, C, S, S)."""
        return (images.to(self.shift.dtype) - self.shift) * self.scale


@dataclass(frozen=True)
class Architecture:
    """A network of the catalogue with its arguments and the surgery done to it since, in order.

    Attributes:
        name: A name of the catalogue, or `timm:NAME`.
        num_classes: K, the number of logits.
        in_chans: C, channels of the input.
        image_size: S, side of the input in px.
        args: Further arguments of the network; `min_map` is the smallest side (px) of the last feature map.
        mean: Per channel, in 0..1 units.
        std: Per channel, in 0..1 units.
        surgery: Steps applied after building, each `{"op": NAME, ...}` with NAME in `SURGERY`.
    """

    name: str
    num_classes: int
    in_chans: int = 3
    image_size: int = 32
    args: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    surgery: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean) or (0.5,) * self.in_chans)
        object.__setattr__(self, "std", tuple(self.std) or (0.5,) * self.in_chans)
        _check(self)

    @property
    def folded(self) -> bool:
        """True when the surgery ends with batch norms and branches folded."""
        return any(step["op"] == "fold" for step in self.surgery)

    @property
    def quantized(self) -> bool:
        """True when the network computes on int8 levels."""
        return any(step["op"] == "quantize" for step in self.surgery)

    @property
    def exits(self) -> bool:
        """True when a head half-way answers the images that it is sure of."""
        return any(step["op"] == "exit" for step in self.surgery)

    @property
    def mirrored(self) -> bool:
        """True when the logits are the mean over an image and its mirror image."""
        return any(step["op"] == "mirror" for step in self.surgery)

    def build(self) -> nn.Module:
        """Return the network: images (N, C, S, S) uint8 or float in 0..255 to logits (N, K), newly initialised.

        The weights depend on torch's global generator alone: `torch.manual_seed` first gives the same ones again.

        Raises:
            ModelError: Unknown name, arguments or surgery, or an input that is too small.
        """
        network: nn.Module = nn.Sequential()
        network.add_module("normalize", Normalize(self.mean, self.std))
        network.add_module("net", self.bare())
        return self.operate(network, self.surgery)

    def operate(self, network: nn.Module, steps: Sequence[Mapping[str, Any]]) -> nn.Module:
        """Return the network after these steps of surgery; its weights go with it."""
        for step in steps:
            network = SURGERY[step["op"]](network, self, step)
        return network

    def bare(self) -> nn.Module:
        """Return the network without normalisation and surgery: normalised images (N, C, S, S) to logits (N, K)."""
        args = dict(self.args)
        entry = find(self.name)
        # Our own networks are made for small inputs as they are.
        least = 1 if entry.library == "flyweight" else default_min_map(self.image_size)
        min_map = int(args.pop("min_map", least))
        net = entry.make(self.num_classes, self.in_chans, self.image_size, **args)
        return spare_onednn(adapt_stem(net, self.name, self.in_chans, self.image_size, min_map))

    def example(self, n: int = 1) -> Tensor:
        """Return blank images (n, C, S, S) uint8."""
        return torch.zeros(n, self.in_chans, self.image_size, self.image_size, dtype=torch.uint8)

    def fold(self) -> Architecture:
        """Return this architecture after folding; itself when it is folded already."""
        return self if self.folded else replace(self, surgery=(*self.surgery, {"op": "fold"}))

    def quantize(self, keep_float: Sequence[str] = ()) -> Architecture:
        """Return this architecture folded and quantized; layers named in `keep_float` keep float weights."""
        folded = self.fold()
        return replace(folded, surgery=(*folded.surgery, {"op": "quantize", "keep_float": list(keep_float)}))

    def exit(self, after: str, *, grid: int, threshold: float) -> Architecture:
        """Return this architecture folded, with an early head after a node of the traced network."""
        folded = self.fold()
        step = {"op": "exit", "after": after, "grid": grid, "threshold": threshold}
        return replace(folded, surgery=(*folded.surgery, step))

    def mirror(self) -> Architecture:
        """Return this architecture folded and answering over images and their mirror images; itself if it does so."""
        folded = self.fold()
        return folded if self.mirrored else replace(folded, surgery=(*folded.surgery, {"op": "mirror"}))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "in_chans": self.in_chans,
            "image_size": self.image_size,
            "args": dict(self.args),
            "mean": list(self.mean),
            "std": list(self.std),
            "surgery": [dict(step) for step in self.surgery],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Architecture:
        """Return the architecture that `to_json` wrote.

        Raises:
            ModelError: A key is missing or unknown, or a value is impossible.
        """
        try:
            content = {**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])}
            return cls(**{**content, "surgery": tuple(data["surgery"])})
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"not an architecture: {error}; found the keys {sorted(data)}",
                do="use the architecture.json that flyweight train wrote",
            ) from error


def fold(network: nn.Module, architecture: Architecture) -> tuple[nn.Module, Architecture]:
    """Return the folded copy of `network`, in evaluation mode, and the architecture that builds it again."""
    if architecture.folded:
        return network.eval(), architecture
    device = next(network.parameters()).device
    return fold_network(network, architecture.example().to(device)), architecture.fold()


def _fold_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    # Biases that folding makes learn too, where training goes on after it.
    return fold_network(network, architecture.example()).requires_grad_(True)


def _dual_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    return DualInput(network.get_submodule("normalize"), network.get_submodule("net"), architecture.bare())


def _merge_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    if not isinstance(network, DualInput):
        raise ModelError(
            f"merge is not preceded by dual in the surgery of {architecture.name!r}",
            do='write {"op": "dual"} before {"op": "merge"}',
        )
    return merge(network, architecture.example(), hidden=int(step["hidden"]), outputs=step["outputs"])


def _quantize_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    if architecture.surgery and not architecture.folded:
        raise ModelError(
            f"quantize is not preceded by fold in the surgery of {architecture.name!r}",
            do='write {"op": "fold"} before {"op": "quantize"}',
        )
    return quantize_network(network, architecture.name, tuple(step.get("keep_float", ())))


def _mirror_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    return Mirrored(OrderedDict(network.named_children()))


def _prune_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    return prune_network(network, step, architecture.name)


def _exit_step(network: nn.Module, architecture: Architecture, step: Mapping[str, Any]) -> nn.Module:
    return add_exit(
        network.eval(),
        architecture.name,
        architecture.example(),
        after=str(step["after"]),
        grid=int(step["grid"]),
        threshold=float(step["threshold"]),
    )


# Every operation that changes a network's structure after building; a step of `Architecture.surgery` names one.
SURGERY = {
    "fold": _fold_step,
    "dual": _dual_step,
    "merge": _merge_step,
    "quantize": _quantize_step,
    "mirror": _mirror_step,
    "prune": _prune_step,
    "exit": _exit_step,
}


def _check(architecture: Architecture) -> None:
    if architecture.num_classes < 2:
        raise ModelError(f"num_classes is {architecture.num_classes}", do="give at least two classes")
    for name in ("in_chans", "image_size"):
        if getattr(architecture, name) < 1:
            raise ModelError(f"{name} is {getattr(architecture, name)}", do=f"give a positive {name}")
    for name in ("mean", "std"):
        if len(getattr(architecture, name)) != architecture.in_chans:
            raise ModelError(
                f"{name} has {len(getattr(architecture, name))} values for {architecture.in_chans} channels",
                do=f"give {architecture.in_chans} values, one per channel",
            )
    if min(architecture.std) <= 0:
        raise ModelError(f"std is {architecture.std}", do="give positive standard deviations, in 0..1 units")
    unknown = [step.get("op") for step in architecture.surgery if step.get("op") not in SURGERY]
    if unknown:
        raise ModelError(
            f"unknown surgery {unknown} in the architecture of {architecture.name!r}",
            do=f"use a version of flyweight that knows it; this one knows {sorted(SURGERY)}",
        )
