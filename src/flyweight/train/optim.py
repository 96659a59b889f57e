"""Optimizer, learning rate and running average, as a recipe names them."""

from __future__ import annotations

import copy
import difflib
import math
from typing import Any

import torch
from torch import nn

from flyweight.errors import RecipeError
from flyweight.models.layers import blocks
from flyweight.train.recipe import OptimPart, Recipe


def make_optimizer(network: nn.Module, optim: OptimPart) -> torch.optim.Optimizer:
    """Return timm's optimizer of that name; biases and normalisation weights are not decayed.

    Raises:
        RecipeError: timm has no optimizer of that name, or it refuses the arguments.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = list_optimizers()
    if optim.name not in names:
        close = difflib.get_close_matches(optim.name, names, n=3, cutoff=0.4)
        raise RecipeError(
            f"optim.name: there is no optimizer {optim.name!r}",
            do=f"choose {', '.join(close) or 'sgd, adamw, nadam, rmsprop, lion or muon'}",
        )
    extra: dict[str, Any] = {"nesterov": False} if optim.name == "sgd" and not optim.momentum else {}
    if optim.betas is not None:
        extra["betas"] = optim.betas
    if optim.eps is not None:
        extra["eps"] = optim.eps
    if optim.layer_decay is not None:
        extra["param_group_fn"] = lambda network: layer_decay_groups(network, optim)
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network, opt=optim.name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum, **extra
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"optim: {optim.name} refuses {extra or optim.lr}: {error}", do="leave out what it does not take"
        ) from error
    return optimizer


def layer_decay_groups(network: nn.Module, optim: OptimPart) -> list[dict[str, Any]]:
    """Return parameter groups whose `lr_scale` falls by `optim.layer_decay` from each block to the one before it.

    Biases and norms are not decayed. Source: BEiT, arXiv:2106.08254, appendix; blocks as `models.layers.blocks` finds.
    """
    assert optim.layer_decay is not None
    found = blocks(network)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for depth, names in enumerate(found):
        for name in names:
            parameter = network.get_parameter(name)
            if not parameter.requires_grad:
                continue
            plain = parameter.ndim <= 1
            scale = optim.layer_decay ** (len(found) - 1 - depth)
            group = groups.setdefault(
                (depth, plain),
                {"params": [], "lr_scale": scale, "weight_decay": 0.0 if plain else optim.weight_decay},
            )
            group["params"].append(parameter)
    return list(groups.values())


def learning_rate(recipe: Recipe, done: float) -> float:
    """Return the learning rate when `done` (0 to 1) of all steps are made."""
    schedule, peak = recipe.schedule, recipe.optim.lr
    warm = schedule.warmup_fraction
    if done < warm:
        return peak * max(done, 1e-6) / warm
    if schedule.name == "constant":
        return peak
    if schedule.name == "step":
        return peak * schedule.factor ** sum(done >= milestone for milestone in schedule.milestones)
    left = 1.0 - (done - warm) / max(1.0 - warm, 1e-9)
    final = schedule.final_fraction
    shape = left if schedule.name == "onecycle" else 0.5 * (1.0 - math.cos(math.pi * left))
    return peak * (final + (1.0 - final) * shape)


class Average:
    """Exponential running average of a network's weights and buffers.

    The decay rises as (1 + n) / (10 + n) with the number of updates n, up to `decay`, so that the first steps do not
    hold the average back.
    Source: Polyak and Juditsky 1992; the rise is TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards `network`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        floats = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1.0 - decay)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates."""
        return {"weights": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the averaged weights and the number of updates back."""
        self.network.load_state_dict(state["weights"])
        self.updates = int(state["updates"])
