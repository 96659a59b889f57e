"""Give a fresh network the statistics of a trained one, so that folding has something to get wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def settle(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fill batch norms with random means, variances, scales and shifts; returns the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, NORMS) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.2, generator=generator)
    return network.eval()


def pixels(n: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    """Return random images (n, channels, size, size) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest value when that is above 1."""
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1.0))
