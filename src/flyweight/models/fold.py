"""Fold batch norms and parallel branches into convolutions: the same function in fewer, plainer layers.

Which layers fold is decided by structure alone, never by weights: `Architecture.build` repeats the fold on a fresh
network and then loads the folded weights. Structure is found by watching one blank image pass: a batch norm folds when
its input is the output of exactly one convolution (or linear layer) that runs once and feeds nothing else. That covers
`Conv2d` + `BatchNorm2d` of torchvision, timm's `BatchNormAct2d`, and whatever else calls the two functions.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.overrides import TorchFunctionMode

from flyweight.models.adapt import evaluating

_Norm = nn.BatchNorm1d | nn.BatchNorm2d
_Layer = nn.Conv2d | nn.Linear


def fold_network(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of `network`, in evaluation mode, with re-parameterizable branches and batch norms folded away.

    Args:
        network: Any network; it is not changed.
        example: One input, (1, C, S, S); its values do not matter.
    """
    folded = copy.deepcopy(network).eval()
    _merge_branches(folded)
    wiring = _Wiring(folded)
    with evaluating(folded), torch.no_grad(), wiring:
        folded(example)
    for layer, norm in wiring.pairs():
        _absorb(layer, norm)
        _replace(folded, norm, _activation_of(norm))
    return folded


class _Wiring(TorchFunctionMode):
    """Watches which layer made each tensor, and who used it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        modules = list(network.modules())
        self._layers = {id(m.weight): m for m in modules if isinstance(m, _Layer)}
        self._norms = {id(m.running_mean): m for m in modules if isinstance(m, _Norm) and m.running_mean is not None}
        self._maker: dict[int, _Layer] = {}
        self._uses: Counter[int] = Counter()
        self._runs: Counter[int] = Counter()
        self._candidates: list[tuple[int, _Norm]] = []
        self._alive: list[object] = []  # an id is only an identity while the tensor lives

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = list(_tensors((args, (kwargs or {}).values())))
        if not any(True for _ in _tensors((result,))):
            return result  # a look at a shape is not a use
        self._alive += [*given, result]
        self._uses.update({id(tensor) for tensor in given})
        for tensor in given:
            if id(tensor) in self._layers and isinstance(result, Tensor):
                layer = self._layers[id(tensor)]
                self._runs[id(layer)] += 1
                if given[0] is not tensor and _is_call_of(layer, func):
                    self._maker[id(result)] = layer
            if id(tensor) in self._norms:
                norm = self._norms[id(tensor)]
                self._runs[id(norm)] += 1
                self._candidates.append((id(given[0]), norm))
        return result

    def pairs(self) -> list[tuple[_Layer, _Norm]]:
        """Return every (layer, batch norm) that are only each other's."""
        found = []
        for made, norm in self._candidates:
            layer = self._maker.get(made)
            if layer is None or self._uses[made] != 1 or self._runs[id(layer)] != 1 or self._runs[id(norm)] != 1:
                continue
            found.append((layer, norm))
        return found


def _is_call_of(layer: _Layer, func: Any) -> bool:
    return func is (torch.conv2d if isinstance(layer, nn.Conv2d) else nn.functional.linear)


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple, type({}.values()))):
            yield from _tensors(value)


def _merge_branches(network: nn.Module) -> None:
    """Merge the parallel branches of RepVGG, MobileOne, FastViT, RepViT, RepGhost …, each by timm's own rule."""
    from timm.models import reparameterize_model  # type: ignore[attr-defined,unused-ignore]

    reparameterize_model(network, inplace=True)


def _absorb(layer: _Layer, norm: _Norm) -> None:
    fuse: Any = fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fuse_linear_bn_weights
    layer.weight, layer.bias = fuse(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _activation_of(norm: _Norm) -> nn.Module:
    """Return what stays of a batch norm: timm's carry an activation (and seldom a dropout)."""
    parts = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts) if parts else nn.Identity()


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in network.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
