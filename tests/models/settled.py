"""Give a fresh network the statistics of a trained one, so that folding has something to get wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def settle(network: nn.Module, channels: int = 3, size: int = 32, seed: int = 0) -> nn.Module:
    """Give batch norms random scales and shifts, and the statistics of 8 random images; eval mode after."""
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in network.modules() if isinstance(m, NORMS) and m.affine and m.track_running_stats]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.2, generator=generator)
        momenta = {norm: norm.momentum for norm in norms}
        for norm in norms:
            norm.momentum = 1.0  # the statistics of this one batch
        network.train()(torch.from_numpy(pixels(8, channels, size, seed=seed + 1)))
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    return network.eval()


def pixels(n: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    """Return random images (n, channels, size, size) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest value when that is above 1."""
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1.0))
