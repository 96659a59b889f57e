"""Fit the last dense layer alone, on features that are computed once: what a trunk knows, in seconds.

Multinomial logistic regression on standardised features, without augmentation; of `PENALTIES` the one that does best on
validation is kept. Source: the linear evaluation of Kornblith et al., arXiv:1805.08974, section 3.2. Changed: fewer
penalties, each begun from the solution before it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flyweight.data.batches import Batches
from flyweight.errors import RecipeError
from flyweight.models.layers import layers

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # of half the sum of squared weights; strongest first
STEPS = 60  # of L-BFGS for each


def fit_head(network: nn.Module, training: Batches, validation: Batches, example: Tensor) -> dict[str, float]:
    """Fit the last layer of `network` in place, the rest in evaluation mode and unchanged.

    Returns a row of the history: losses in nats per image, accuracies 0 to 1, the penalty that was kept.

    Args:
        training: Batches of the training images, without random changes.
        example: One input, (1, C, S, S), on the network's device.

    Raises:
        RecipeError: The last layer is no dense one.
    """
    started = time.perf_counter()
    name = layers(network, example)[-1].name
    head = network.get_submodule(name)
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise RecipeError(
            f"stages: probe fits a dense last layer, and that of this network is {name.removeprefix('net.')} "
            f"({type(head).__name__})",
            do="--recipe unfreeze, which begins with the last layer too and fits no head by itself; or stages without "
            "probe, or another network",
            more="docs/weights.md#ways-to-go-on-from-them",
        )
    features, labels = _features(network, head, training)
    seen, wanted = _features(network, head, validation)
    found = fit_linear(features, labels, seen, wanted, head.out_features)
    with torch.no_grad():
        head.weight.copy_(found.weight)
        head.bias.copy_(found.bias)
    seconds = time.perf_counter() - started
    row = {"train_loss": found.loss, "val_loss": found.val_loss, "val_accuracy": found.val_accuracy, "lr": 0.0}
    return {**row, "penalty": found.penalty, "train_seconds": seconds, "images_per_second": len(labels) / seconds}


@dataclass(frozen=True)
class Linear:
    """A dense layer (K, F) and (K,) fitted to features, with losses in nats per image and the penalty that was kept."""

    weight: Tensor
    bias: Tensor
    penalty: float
    loss: float
    val_loss: float
    val_accuracy: float


def fit_linear(features: Tensor, labels: Tensor, seen: Tensor, wanted: Tensor, classes: int) -> Linear:
    """Return the dense layer that fits features (N, F) to labels (N,), with the penalty that validates best.

    Args:
        seen: Features (M, F) of the validation images.
        wanted: Their labels (M,).
    """
    mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
    features, seen = (features - mean) / std, (seen - mean) / std
    weight = torch.zeros(classes, features.shape[1], device=features.device)
    bias = torch.zeros(classes, device=features.device)
    best: tuple[tuple[float, float], float, Tensor, Tensor, float] | None = None
    for penalty in PENALTIES:
        weight, bias, loss = _fitted(features, labels, weight, bias, penalty)
        logits = seen @ weight.T + bias
        accuracy = float((logits.argmax(1) == wanted).float().mean())
        rank = (accuracy, -float(F.cross_entropy(logits, wanted)))
        if best is None or rank > best[0]:
            best = (rank, penalty, weight.clone(), bias.clone(), loss)
    assert best is not None
    (accuracy, likelihood), penalty, weight, bias, loss = best
    return Linear(weight / std, bias - (weight / std) @ mean, penalty, loss, -likelihood, accuracy)


def _features(network: nn.Module, head: nn.Module, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return what enters the head, (N, F) float32, and labels (N,)."""
    caught: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0].flatten(1).float()))
    labels = []
    try:
        network.eval()
        with torch.inference_mode():
            for images, wanted in batches.epoch(0):
                network(images)
                labels.append(wanted)
    finally:
        handle.remove()
    return torch.cat(caught).clone(), torch.cat(labels).clone()


def _fitted(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, penalty: float
) -> tuple[Tensor, Tensor, float]:
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
        loss = float(F.cross_entropy(features @ weight.T + bias, labels).detach())
    return weight.detach(), bias.detach(), loss
