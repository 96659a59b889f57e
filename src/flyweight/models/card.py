"""The card of a network: where it comes from, how it folds, which sizes it takes, which weights are published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from flyweight.models.adapt import SMALL_INPUT, default_min_map, trace
from flyweight.models.architecture import Architecture, fold
from flyweight.models.zoo import SMALLEST, check_size, find

_MERGES = ("reparameterize", "fuse", "switch_to_deploy")


@dataclass(frozen=True)
class Card:
    """Facts of a network at one input and head; what its file costs is `export.counted`.

    Attributes:
        native_size: Side in px that its published weights were made for; None: made for any size.
        last_map: Side in px of its last feature map at this input.
        params_as_built: Learned values before folding.
        reparameterized: Blocks whose parallel branches (in tiny_sep: whose inner norm) go into plain convolutions.
        folded_norms: Batch norms that disappear into the layer before them (or, in tiny_sep, after them).
        left_norms: Norms that stay: layer norms, and batch norms that no convolution feeds.
        pretrained: Published weights of the same trunk, by the names that `flyweight weights get` takes.
    """

    name: str
    family: str
    library: str
    paper: str
    licence: str
    image_size: int
    native_size: int | None
    last_map: int
    params_as_built: int
    reparameterized: int
    folded_norms: int
    left_norms: int
    pretrained: tuple[str, ...]

    @property
    def folding(self) -> str:
        """Return in one sentence what folding does."""
        parts = []
        if self.reparameterized:
            parts.append(f"{self.reparameterized} blocks are re-parameterized into plain convolutions")
        if self.folded_norms:
            parts.append(f"{self.folded_norms} batch norms disappear into their convolutions")
        if self.left_norms:
            parts.append(f"{self.left_norms} norm{'s stay' if self.left_norms > 1 else ' stays'}")
        return "; ".join(parts) or "nothing to fold"

    @property
    def sizes(self) -> str:
        """Return in one sentence which inputs it takes."""
        native = f"made for {self.native_size} px" if self.native_size else "made for small images"
        return (
            f"{native}; takes {SMALLEST} px and more, any number of channels; up to {SMALL_INPUT} px early strides are "
            f"dropped: the last map of {self.image_size} px is {self.last_map} px"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "folding": self.folding, "sizes": self.sizes}


def card_of(architecture: Architecture) -> Card:
    """Return the card of the architecture's network.

    Raises:
        ModelError: It cannot be built at that size, or images of that size are too small.
    """
    check_size(architecture.name, architecture.image_size)
    entry = find(architecture.name)
    network = architecture.build()
    folded, _ = fold(network, architecture)
    before, after = _norms(network), _norms(folded)
    shrinks = trace(architecture.bare(), entry.name, architecture.in_chans, architecture.image_size)
    return Card(
        name=entry.name,
        family=entry.family,
        library=entry.library,
        paper=entry.paper,
        licence=entry.licence,
        image_size=architecture.image_size,
        native_size=_native_size(entry.library, entry.name),
        last_map=min([shrink.after for shrink in shrinks], default=default_min_map(architecture.image_size)),
        params_as_built=sum(parameter.numel() for parameter in network.parameters()),
        reparameterized=_branches(network) - _branches(folded),
        folded_norms=before - after,
        left_norms=after,
        pretrained=pretrained_names(entry.library, entry.name),
    )


def pretrained_names(library: str, name: str) -> tuple[str, ...]:
    """Return the names of published weights, as `flyweight weights get` takes them; none for our own networks.

    Those of a trunk without classes are left out: an `Architecture` has two at least.
    """
    if library == "timm":
        import timm

        found = {tagged: timm.get_pretrained_cfg(tagged) for tagged in timm.list_pretrained(name.removeprefix("timm:"))}
        return tuple(f"timm/{tagged}" for tagged, config in found.items() if config and config.num_classes >= 2)
    if library == "torchvision":
        import torchvision

        return tuple(f"torchvision/{name}.{weight.name}" for weight in torchvision.models.get_model_weights(name))
    return ()


def _native_size(library: str, name: str) -> int | None:
    if library == "flyweight":
        return None
    if library == "torchvision":
        return 224
    import timm

    config = timm.get_pretrained_cfg(name.removeprefix("timm:"))
    return 224 if config is None else int(config.input_size[-1])


def _norms(network: nn.Module) -> int:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    return sum(isinstance(m, kinds) or "RmsNorm" in type(m).__name__ for m in network.modules())


def _branches(network: nn.Module) -> int:
    """Count blocks that still have branches to merge: those timm's rule would call, but not plain batch-norm folds."""
    return sum(any(hasattr(m, name) for name in _MERGES) and _parallel(m) for m in network.modules())


def _parallel(block: nn.Module) -> bool:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in block.modules()) > 1
