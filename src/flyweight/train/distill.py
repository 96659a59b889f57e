"""Trained networks as teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.models.architecture import Architecture, fold
from flyweight.models.layers import layers
from flyweight.train.recipe import DistillPart, Resolved
from flyweight.train.trained import FACTS, Trained


class Teacher:
    """Finished runs that answer together: folded, in evaluation mode, without gradients."""

    def __init__(self, runs: Sequence[Trained], *, features: bool = False) -> None:
        self.classes, self.architecture = runs[0].classes, runs[0].architecture
        self._networks = [fold(one.network(), one.architecture)[0].requires_grad_(False) for one in runs]
        watched = self._networks if features else []
        self._heads = [Features(network, self.architecture.example()) for network in watched]

    def on(self, plan: Resolved) -> Teacher:
        """Move them to the plan's device and memory layout, in place."""
        layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        for network in self._networks:
            network.to(device=plan.device, memory_format=layout)  # type: ignore[call-overload]
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, S, S): of several teachers the logarithm of their mean probability."""
        found: list[Tensor] = [network(images) for network in self._networks]
        if len(found) == 1:
            return found[0]
        return torch.stack([logits.float().softmax(1) for logits in found]).mean(0).clamp_min(1e-30).log()

    @property
    def features(self) -> list[Tensor]:
        """What each network gave to its last layer, (N, F), in the last call; () where features are not asked for."""
        return [head.seen for head in self._heads]


class Features:
    """Keeps what a network gives to its last layer, (N, F), of its last pass."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self._seen: Tensor | None = None
        path = layers(network, example.to(next(network.parameters()).device))[-1].name
        network.get_submodule(path).register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0].flatten(1).float()

    @property
    def seen(self) -> Tensor:
        """Return them."""
        assert self._seen is not None, "the network has not been run"
        return self._seen


def load_teacher(
    part: DistillPart, classes: tuple[str, ...] | None = None, student: Architecture | None = None
) -> Teacher:
    """Return the teachers of a recipe, compared with the classes and pixels of the student where these are given.

    Raises:
        ModelError: One is no finished run, or was trained on other classes or pixels.
    """
    runs = find_teachers(part)
    for name, one in zip(part.teachers, runs, strict=True):
        if classes is not None and one.classes != classes:
            raise _other_classes(name, one.classes, classes)
        pixels = (one.architecture.in_chans, one.architecture.image_size)
        if student is not None and pixels != (student.in_chans, student.image_size):
            raise ModelError(
                f"the teacher {name!r} sees {pixels[0]} × {pixels[1]} px, the student "
                f"{student.in_chans} × {student.image_size} px",
                do=f"set data.image_size={pixels[1]} and data.channels={pixels[0]}, or train a teacher of the "
                "student's",
            )
    return Teacher(runs, features=part.features > 0)


def find_teachers(part: DistillPart) -> list[Trained]:
    """Return the runs that a recipe names as its teachers. Raises ModelError."""
    return [_find(name) for name in part.teachers]


def _find(name: str) -> Trained:
    folder = Path(name)
    if not (folder / FACTS).exists():
        raise ModelError(
            f"distill.teacher {name!r} is not the folder of a finished run",
            do="train the teacher first (flyweight train DATA --out FOLDER), then name that folder",
        )
    return Trained.load(folder)


def _other_classes(name: str, theirs: tuple[str, ...], ours: tuple[str, ...]) -> ModelError:
    missing, added = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    differ = f"it lacks {missing[:5]} and has {added[:5]}" if missing or added else "the same names in another order"
    return ModelError(
        f"the teacher {name!r} knows {len(theirs)} classes and the data have {len(ours)}: {differ}",
        do="train a teacher on this data, or on data with the same class names",
    )
