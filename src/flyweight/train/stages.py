"""Stages of a run: which form of the network trains, which layers learn, for how long and at what rate.

A recipe without stages is one stage: itself. Dual input and progressive unfreezing are stages of a recipe, so they work
for every network of the catalogue. What a stage hands on is a state dict; the next one takes what fits by name.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.data.policy import AugmentPolicy
from flyweight.errors import ModelError, RecipeError
from flyweight.models.architecture import Architecture
from flyweight.models.layers import count_from_top, layers, release
from flyweight.train.flops import counter
from flyweight.train.initialize import initialize
from flyweight.train.loop import State
from flyweight.train.optim import Average, make_optimizer
from flyweight.train.probe import on_device
from flyweight.train.recipe import PlannedStage, Recipe, StagePart


@dataclass(frozen=True)
class Stage:
    """One stage, ready for the loop.

    Attributes:
        recipe: What the loop reads: the recipe with this stage's epochs, rate, augmentation and seed.
        architecture: The form of the network in this stage.
        layers: The last so many layers learn; None: all.
        second_view: Changes of a second view of each image; None: one view.
        probe: The head is fitted on cached features, once, in place of training.
    """

    index: int
    name: str
    recipe: Recipe
    architecture: Architecture
    layers: int | None
    second_view: AugmentPolicy | None
    probe: bool = False


def plan_stages(recipe: Recipe, architecture: Architecture) -> tuple[PlannedStage, ...]:
    """Return the recipe's stages with top-down releases counted out for this network; () when it has none.

    Raises:
        RecipeError: A stage unfreezes a layer that the network does not have.
    """
    return tuple(
        planned
        for index, part in enumerate(recipe.stages)
        for planned in _counted_out(index, part, form_of(recipe, part, architecture))
    )


def stages(recipe: Recipe, architecture: Architecture) -> list[Stage]:
    """Return the stages of a resolved recipe, in the order in which they run."""
    planned = recipe.settled().stages
    if not planned:
        return [Stage(0, recipe.name, recipe, architecture, None, None)]
    found = []
    for index, plan in enumerate(planned):
        part = recipe.stages[plan.stage]
        views = recipe.second_view if part.views == "split" else None
        own = _recipe_of(recipe, part, plan, index)
        found.append(Stage(index, plan.name, own, form_of(recipe, part, architecture), plan.layers, views, part.probe))
    return found


def check_stages(recipe: Recipe, architecture: Architecture) -> None:
    """Build what every stage needs once, so that the last one cannot fail after hours of the others.

    Raises:
        RecipeError: A stage's optimizer does not exist, or its views cannot be mixed.
        ModelError: The network cannot be merged.
    """
    for index, part in enumerate(recipe.stages):
        make_optimizer(form_of(recipe, part, architecture).build(), part.optim or recipe.optim)
        views = [part.augment or recipe.augment, recipe.second_view or AugmentPolicy()]
        if part.views == "split" and any(view.mixes for view in views):
            raise RecipeError(
                f"stages.{index}: mixup or cutmix with views: split, where each sub-model sees its own image",
                do="set mixup and cutmix to 0 in augment and second_view, or use views: same",
            )


def form_of(recipe: Recipe, part: StagePart, architecture: Architecture) -> Architecture:
    """Return the architecture in the form that a stage trains: single, dual or merged, quantized or not."""
    steps: dict[str, tuple[dict[str, Any], ...]] = {"single": (), "dual": ({"op": "dual"},)}
    steps["merged"] = (*steps["dual"], {"op": "merge", **recipe.merge.model_dump()})
    formed = replace(architecture, surgery=(*architecture.surgery, *steps[part.network]))
    return formed.quantize() if part.quantize and not formed.quantized else formed


def enter(stage: Stage, weights: Mapping[str, Tensor] | None, *, device: str) -> State:
    """Return the state in which a stage begins: its network with what fits of `weights`, and a fresh optimizer.

    Its `afresh` names the tensors that did not fit for another reason than another number of classes.

    Raises:
        ModelError: Few of the weights fit, or the network cannot begin as `model.init` says.
    """
    torch.manual_seed(stage.recipe.seed)
    network = stage.architecture.build()
    afresh: list[str] = []
    if weights is not None:
        classes = stage.architecture.num_classes
        afresh = [name for name in take_weights(network, weights) if not _of_head(network, name, weights, classes)]
    elif stage.index == 0:
        initialize(network, stage.recipe.model.init, stage.architecture)
    if stage.layers is not None:
        release(network, layers(network, stage.architecture.example())[-stage.layers :])
    network = on_device(network.train(), stage.recipe.settled())
    average = Average(network, stage.recipe.ema_decay) if stage.recipe.ema_decay else None
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    optimizer = make_optimizer(network, stage.recipe.optim)
    return State(network, optimizer, average, stage.index, loss_sum=loss_sum, afresh=tuple(afresh))


def brought(weights: Mapping[str, Tensor], before: Architecture, after: Architecture) -> Mapping[str, Tensor]:
    """Return the weights of a network as they are named after it was folded or quantized; as they are otherwise."""
    steps = after.surgery[len(before.surgery) :]
    if after.surgery[: len(before.surgery)] != before.surgery or after.quantized == before.quantized:
        return weights
    network = before.build()
    network.load_state_dict(dict(weights))
    return before.operate(network.eval(), steps).state_dict()


def kept_weights(state: State, recipe: Recipe) -> tuple[dict[str, Tensor], int]:
    """Return the weights with which a stage ends, and the row of the history that they belong to."""
    if state.best is not None:
        return state.best["weights"], int(state.best["row"])
    return {name: value.detach().clone() for name, value in state.judged.state_dict().items()}, len(state.history) - 1


def take_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy every tensor whose name and shape fit; return the names of what stays as it is, without counters.

    What does not fit: the head for another number of classes, and what has a value for each place of a map of another
    size (the attention biases of EfficientViT-MSRA). A dense layer's weights (K, F) fit the same layer as a 1 × 1
    convolution (K, F, 1, 1).

    Raises:
        ModelError: Less than half fits: the weights are of another network.
    """
    own = network.state_dict()
    fitting = {
        name: value.reshape(own[name].shape)
        for name, value in weights.items()
        if name in own and _squeezed(own[name].shape) == _squeezed(value.shape)
    }
    if 2 * len(fitting) < len(own):
        raise ModelError(
            f"only {len(fitting)} of the network's {len(own)} tensors are among the weights to begin with",
            do="begin with a run of the same network (and, for a dual one, of the same stage or the one before)",
        )
    network.load_state_dict({**own, **fitting})
    return [name for name, value in own.items() if name not in fitting and value.is_floating_point()]


def training_macs(network: nn.Module, images: Tensor) -> float:
    """Return the multiply-accumulates of one image's forward and backward pass, as the frozen layers leave them.

    Counted by `flops.counter` (convolutions, matrix products, attention) over one real pass of a copy.

    Args:
        images: (N, C, S, S), or (N, 2C, S, S) of two views.
    """
    tried = copy.deepcopy(network).train()
    with counter() as counted:
        tried(images).float().sum().backward()
    return float(counted.get_total_flops()) / 2 / len(images)


def _counted_out(index: int, part: StagePart, architecture: Architecture) -> list[PlannedStage]:
    name = part.name or ("probe" if part.probe else part.network)
    if part.probe:
        return [PlannedStage(stage=index, name=name, epochs=1)]
    if part.unfreeze == "all":
        return [PlannedStage(stage=index, name=name, epochs=part.epochs)]
    found = layers(architecture.build(), architecture.example())
    if part.unfreeze != "top_down":
        try:
            count = count_from_top(found, part.unfreeze)
        except ModelError as error:
            raise RecipeError(f"stages.{index}.{error.what}", do=error.do) from error
        return [PlannedStage(stage=index, name=name, epochs=part.epochs, layers=count)]
    releases = part.releases or len(found)
    if releases > len(found):
        raise RecipeError(
            f"stages.{index}.releases is {releases}, but the network has {len(found)} layers",
            do=f"choose 1 to {len(found)} releases, or leave it out for one a layer",
        )
    counts = [round(len(found) * (step + 1) / releases) for step in range(releases)]
    label = part.name or "unfreeze"
    return [
        PlannedStage(stage=index, name=f"{label} {count}/{len(found)}", epochs=part.epochs, layers=count)
        for count in counts
    ]


def _recipe_of(recipe: Recipe, part: StagePart, plan: PlannedStage, index: int) -> Recipe:
    own = ("optim", "schedule", "augment", "patience", "epoch_images")
    given = {name: getattr(part, name) for name in own if getattr(part, name) is not None}
    if part.probe:
        given["ema_decay"] = None  # there are no steps to average over
    return recipe.model_copy(update={**given, "epochs": plan.epochs, "seed": _seed(recipe.seed, index)})


def _seed(seed: int, index: int) -> int:
    """Return the seed of a stage: the first has the recipe's, the others draw other images and other heads."""
    if index == 0:
        return seed
    digest = hashlib.blake2b(json.dumps([seed, index]).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _of_head(network: nn.Module, name: str, weights: Mapping[str, Tensor], classes: int) -> bool:
    """True for a tensor of a layer with an output a class, where the number of classes alone keeps it from fitting."""
    module = network.get_submodule(name.rpartition(".")[0])
    if name not in weights or not isinstance(module, (nn.Linear, nn.Conv2d)):
        return False
    own, given = _squeezed(network.state_dict()[name].shape), _squeezed(weights[name].shape)
    return own[:1] == (classes,) and own[1:] == given[1:]


def _squeezed(shape: torch.Size) -> tuple[int, ...]:
    """Return a weight's shape without the trailing ones of a 1 × 1 convolution."""
    sides = list(shape)
    while len(sides) > 2 and sides[-1] == 1:
        sides.pop()
    return tuple(sides)
