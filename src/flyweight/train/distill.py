"""A trained network as a teacher."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.models.architecture import Architecture, fold
from flyweight.train.recipe import DistillPart, Resolved
from flyweight.train.trained import FACTS, Trained


class Teacher:
    """A finished run that answers: folded, in evaluation mode, without gradients."""

    def __init__(self, trained: Trained) -> None:
        self.classes, self.architecture = trained.classes, trained.architecture
        self._network: nn.Module = fold(trained.network(), trained.architecture)[0].requires_grad_(False)

    def on(self, plan: Resolved) -> Teacher:
        """Move it to the plan's device and memory layout, in place."""
        layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        self._network.to(device=plan.device, memory_format=layout)  # type: ignore[call-overload]
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, S, S)."""
        logits: Tensor = self._network(images)
        return logits


def load_teacher(
    part: DistillPart, classes: tuple[str, ...] | None = None, student: Architecture | None = None
) -> Teacher:
    """Return the teacher of a recipe, compared with the classes and pixels of the student where these are given.

    Raises:
        ModelError: It is no finished run, or was trained on other classes or pixels.
    """
    teacher = Teacher(find_teacher(part))
    if classes is not None and teacher.classes != classes:
        raise _other_classes(part.teacher, teacher.classes, classes)
    pixels = (teacher.architecture.in_chans, teacher.architecture.image_size)
    if student is not None and pixels != (student.in_chans, student.image_size):
        raise ModelError(
            f"the teacher {part.teacher!r} sees {pixels[0]} × {pixels[1]} px, the student "
            f"{student.in_chans} × {student.image_size} px",
            do=f"set data.image_size={pixels[1]} and data.channels={pixels[0]}, or train a teacher of the student's",
        )
    return teacher


def find_teacher(part: DistillPart) -> Trained:
    """Return the run that a recipe names as its teacher. Raises ModelError."""
    folder = Path(part.teacher)
    if not (folder / FACTS).exists():
        raise ModelError(
            f"distill.teacher {part.teacher!r} is not the folder of a finished run",
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
