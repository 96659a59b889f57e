"""The last batch norm of each residual branch of any network, found in the graph of one pass and not by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.models.adapt import evaluating

_NORM = "NativeBatchNormBackward0"
_WEIGHTED = ("ConvolutionBackward0", "AddmmBackward0", "MmBackward0")
# What makes zeros of zeros and has one input: a branch that ends in a norm may pass through these.
_KEEPS_ZERO = (
    "ReluBackward0", "SiluBackward0", "GeluBackward0", "HardswishBackward0", "HardtanhBackward0", "LeakyReluBackward0",
    "ViewBackward0", "CloneBackward0", "PermuteBackward0", "SliceBackward0", "AliasBackward0",
)  # fmt: skip


@dataclass(frozen=True)
class _Sum:
    """A sum of two maps that were computed: the node of each, and all nodes that only it was computed by."""

    sides: tuple[Any, Any]
    own: tuple[set[Any], set[Any]]


def last_norms(network: nn.Module, name: str, example: Tensor) -> list[nn.Module]:
    """Return the batch norm that ends each residual branch; with its weight zero the block is its shortcut alone.

    A residual sum has more convolutions (or dense layers) on one side, the branch, than on the other, the shortcut.

    Args:
        name: Of the network, for people.
        example: One input, (1, C, S, S); its values do not matter.

    Raises:
        ModelError: There is no residual branch, or one does not end in a batch norm with a weight.
    """
    owners = {id(module.weight): module for module in network.modules() if _scaled_norm(module)}
    with evaluating(network), torch.enable_grad():
        output = network(example)
    branches = [branch for found in _sums(output.grad_fn) if (branch := _branch(found)) is not None]
    norms = [owners.get(id(weight)) for branch in branches if (weight := _norm_weight(branch)) is not None]
    ended = [norm for norm in norms if norm is not None]
    if not branches or len(ended) < len(branches):
        found = f"{len(branches) - len(ended)} of its {len(branches)} end in none" if branches else "it has none"
        raise ModelError(
            f"zero_gamma needs residual branches that end in a batch norm, and of {name!r} {found}",
            do="choose another model.init, such as kaiming, or a network with such branches, such as resnet18",
        )
    return list(dict.fromkeys(ended))


def _scaled_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None


def _sums(output: Any) -> Iterator[_Sum]:
    """Yield every sum of two computed maps in an autograd graph."""
    for node in _above(output):
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        computed = [parent for parent in parents if parent.name() != "torch::autograd::AccumulateGrad"]
        if node.name().startswith("AddBackward") and len(computed) == 2:
            first, second = (_above(parent) for parent in computed)
            yield _Sum((computed[0], computed[1]), (first - second, second - first))


def _above(node: Any) -> set[Any]:
    """Return a node and all that it was computed from."""
    seen, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.add(one)
            waiting += [parent for parent, _ in one.next_functions]
    return seen


def _branch(found: _Sum) -> Any | None:
    """Return the end of the residual branch; None for a sum of equal sides, which has no shortcut."""
    counts = [sum(node.name() in _WEIGHTED for node in own) for own in found.own]
    if counts[0] == counts[1]:
        return None
    return found.sides[0] if counts[0] > counts[1] else found.sides[1]


def _norm_weight(node: Any) -> Any | None:
    """Return the weight of the norm that a branch ends in; None where it ends otherwise."""
    while node.name() in _KEEPS_ZERO:
        (node, _), *_ = node.next_functions
    if node.name() != _NORM:
        return None
    leaf = node.next_functions[1][0]
    return None if leaf is None else leaf.variable
