"""Two copies of a network side by side, and the one network that both are merged into.

`DualInput` is what stage 1 of the dual-input method trains: two identical sub-models, each with its own images, output
and loss. `Merged` is what stage 2 trains and what ships: the outputs of both, side by side, into a new dense head.
Both are surgery of `Architecture`, so that they reload without pickle: {"op": "dual"}, then {"op": "merge", ...}.

Source: Isong, arXiv:2501.15547, stages 1 and 2. Changed: works for every network of the catalogue; the paper leaves
open whether logits or probabilities are merged, so that is an argument.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flyweight.errors import ModelError
from flyweight.models.adapt import evaluating

Outputs = Literal["logits", "probs"]


class DualInput(nn.Module):
    """Two sub-models; images (N, C, S, S) go to both, of two views (N, 2C, S, S) one goes to each.

    In training it gives both outputs, (N, 2, K) logits; in evaluation the logarithm of their mean probability (N, K):
    the plain ensemble of the two.
    """

    def __init__(self, normalize: nn.Module, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        _check_alike(first, second)
        self.normalize = normalize
        self.net = nn.ModuleDict({"first": first, "second": second})

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 2, K) in training, log-probabilities (N, K) in evaluation."""
        logits = torch.stack(_both(self, images), 1)
        return logits if self.training else _log_mean_probs(logits)


class Merged(nn.Module):
    """Both sub-models' outputs, concatenated to (N, 2K), then dense `hidden`, ReLU, dense K."""

    def __init__(self, dual: DualInput, num_classes: int, hidden: int, outputs: Outputs) -> None:
        super().__init__()
        self.normalize, self.outputs = dual.normalize, outputs
        head = nn.Sequential(nn.Linear(2 * num_classes, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
        self.net = nn.ModuleDict({"first": dual.net["first"], "second": dual.net["second"], "head": head})

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, S, S) or, one view for each sub-model, (N, 2C, S, S)."""
        found = _both(self, images)
        if self.outputs == "probs":
            found = [logits.softmax(1) for logits in found]
        logits: Tensor = self.net["head"](torch.cat(found, 1))
        return logits


class PointwiseOutput(nn.Conv2d):
    """An output layer as a 1 × 1 convolution over a map flattened to one pixel; its weights are the dense layer's."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense.in_features, dense.out_features, 1, bias=dense.bias is not None)
        with torch.no_grad():
            self.weight.copy_(dense.weight[:, :, None, None])
            if dense.bias is not None and self.bias is not None:
                self.bias.copy_(dense.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, K) of features (N, F)."""
        return super().forward(features[:, :, None, None]).flatten(1)


def merge(dual: DualInput, example: Tensor, *, hidden: int = 32, outputs: Outputs = "logits") -> Merged:
    """Return the unified model: output layers become 1 × 1 convolutions with their weights, and the head is new.

    Args:
        example: One input, (1, C, S, S); its values do not matter.
        hidden: Width of the dense layer between the outputs and the classes.

    Raises:
        ModelError: The sub-models are unlike, or one has no output layer that could be kept.
    """
    first, second = dual.net["first"], dual.net["second"]
    _check_alike(first, second)
    features = dual.normalize(example)
    num_classes = 0
    for part in (first, second):
        path, num_classes = _output_layer(part, features)
        layer = part.get_submodule(path)
        if isinstance(layer, nn.Linear):
            part.set_submodule(path, PointwiseOutput(layer))
    return Merged(dual, num_classes, hidden, outputs)


def _both(network: DualInput | Merged, images: Tensor) -> list[Tensor]:
    channels = network.normalize.shift.shape[1]  # type: ignore[index]
    views = images.split(channels, 1) if images.shape[1] != channels else (images, images)
    parts = (network.net["first"], network.net["second"])
    return [part(network.normalize(view)) for part, view in zip(parts, views, strict=True)]


def _log_mean_probs(logits: Tensor) -> Tensor:
    return F.log_softmax(logits, dim=-1).exp().mean(1).clamp_min(1e-30).log()


def _check_alike(first: nn.Module, second: nn.Module) -> None:
    one, two = ({name: tuple(value.shape) for name, value in net.state_dict().items()} for net in (first, second))
    if one == two:
        return
    name = next(name for name in [*one, *two] if one.get(name) != two.get(name))
    raise ModelError(
        f"the sub-models are unlike: {name!r} is {one.get(name, 'missing')} in the first and "
        f"{two.get(name, 'missing')} in the second",
        do="merge two runs of one network with the same arguments, classes, channels and image size",
    )


def _output_layer(part: nn.Module, example: Tensor) -> tuple[str, int]:
    """Return the path of the layer that makes the logits, and their number: the last dense or 1 × 1 one to run."""
    last: list[str] = []

    def note(path: str) -> None:
        last.append(path)

    handles = [
        module.register_forward_hook(lambda module, inputs, output, path=path: note(path))
        for path, module in part.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    with evaluating(part), torch.no_grad():
        num_classes = int(part(example).shape[1])
    for handle in handles:
        handle.remove()
    layer = part.get_submodule(last[-1]) if last else None
    if layer is None or num_classes != getattr(layer, "out_features", getattr(layer, "out_channels", 0)):
        raise ModelError(
            f"the last layer of {type(part).__name__} gives no {num_classes} classes, so a merge cannot keep it",
            do="choose a network that ends in a dense layer or a 1 × 1 convolution of one output per class",
        )
    return last[-1], num_classes
