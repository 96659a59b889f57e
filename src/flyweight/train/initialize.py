"""How a network's weights begin: the recipe's `model.init`.

A scheme draws the weights of convolutions and dense layers and sets their biases to zero. Norms, embeddings and scales
stay as the network's builder made them; `default` leaves everything so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flyweight.models.architecture import Architecture
from flyweight.models.residual import last_norms
from flyweight.train.recipe import Init

TRUNC_STD = 0.02
RELU_GAIN = math.sqrt(2.0)  # a ReLU halves the mean square of what passes through it


@torch.no_grad()
def initialize(network: nn.Module, init: Init, architecture: Architecture) -> None:
    """Draw the weights of a network anew, in place, from torch's global generator.

    kaiming: normal of variance 2 / fan_in. Source: He et al. 2015 (arXiv:1502.01852), equation 10.
    xavier: uniform of variance 2 / (fan_in + fan_out). Source: Glorot and Bengio 2010, equation 16.
    orthogonal: rows (or columns, where they are fewer) orthogonal and of length √2. Source: Saxe et al. 2014
        (arXiv:1312.6120). Changed: with the gain of ReLU, and the filters of each group by themselves.
    trunc_normal: normal of deviation 0.02, cut at two deviations, as vision transformers are begun
        (arXiv:2012.12877, section 6).
    zero_gamma: the builder's weights; the last batch norm of each residual branch is zero, so that each block begins
        as its shortcut. Source: Goyal et al. 2017 (arXiv:1706.02677), section 5.1.

    Raises:
        ModelError: zero_gamma, and a residual branch does not end in a batch norm.
    """
    if init == "zero_gamma":
        for norm in last_norms(network, architecture.name, architecture.example()):
            nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
    elif init != "default":
        for module in network.modules():
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
                SCHEMES[init](module.weight, getattr(module, "groups", 1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def fans(weight: Tensor, groups: int) -> tuple[int, int]:
    """Return how many inputs an output sums, and how many outputs an input reaches at stride 1.

    Args:
        weight: (outputs, inputs of one group, ...).
    """
    window = weight[0, 0].numel()
    return weight.shape[1] * window, weight.shape[0] // groups * window


def _kaiming(weight: Tensor, groups: int) -> None:
    nn.init.normal_(weight, std=RELU_GAIN / math.sqrt(fans(weight, groups)[0]))


def _xavier(weight: Tensor, groups: int) -> None:
    bound = math.sqrt(6.0 / sum(fans(weight, groups)))
    nn.init.uniform_(weight, -bound, bound)


def _orthogonal(weight: Tensor, groups: int) -> None:
    for part in weight.chunk(groups):
        nn.init.orthogonal_(part, gain=RELU_GAIN)


def _trunc_normal(weight: Tensor, groups: int) -> None:
    nn.init.trunc_normal_(weight, std=TRUNC_STD, a=-2 * TRUNC_STD, b=2 * TRUNC_STD)


SCHEMES: dict[str, Callable[[Tensor, int], None]] = {
    "kaiming": _kaiming,
    "xavier": _xavier,
    "orthogonal": _orthogonal,
    "trunc_normal": _trunc_normal,
}
