"""What a method of compression may use besides the network: the data, its folder, the run that all began with."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.split import Split, split_from_rule
from flyweight.errors import DataError
from flyweight.train.answers import validation_logits
from flyweight.train.run import Event
from flyweight.train.trained import Trained

if TYPE_CHECKING:
    from flyweight.models.architecture import Architecture


@dataclass(frozen=True)
class Said:
    """A method has something to tell people."""

    text: str


Progressing = Generator[Event | Said, None, Trained]


@dataclass(frozen=True)
class Context:
    """Where a step works.

    Attributes:
        dataset: What the network was trained on.
        folder: Of this step; a stopped one finds its own files there.
        original: Folder of the run before the first step: the teacher where none is named.
        device: cpu or cuda; None: the GPU where there is one.
        threads: Of measured inference.
    """

    dataset: Dataset
    folder: Path
    original: Path
    device: str | None = None
    threads: int = 1

    def split(self, trained: Trained) -> Split:
        """Return the parts as the run had them. Raises DataError for data of other classes."""
        if self.dataset.classes != trained.classes:
            raise DataError(
                f"{self.dataset.name!r} has {len(self.dataset.classes)} classes, the run {len(trained.classes)}, or "
                "the same in another order",
                do="give the data that the run was trained on",
            )
        return split_from_rule(self.dataset, trained.split)

    def training_images(self, trained: Trained, most: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return up to `most` training images (N, C, S, S) uint8, evenly spaced, not augmented, and labels (N,)."""
        chosen = self.split(trained).train
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(int)]
        pixels = np.asarray(build_fixed(self.dataset, chosen, trained.preprocess).pixels)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self.dataset.labels[chosen]

    def changed(self, trained: Trained, architecture: Architecture, weights: Mapping[str, Tensor]) -> Trained:
        """Return the run with another network, scored on the validation images again."""
        made = replace(trained, architecture=architecture, weights={k: v.detach().cpu() for k, v in weights.items()})
        return self.scored(made)

    def scored(self, trained: Trained) -> Trained:
        """Return the run with the accuracy on validation images that its network has now."""
        logits, labels = validation_logits(self.dataset, trained, self.split(trained))
        shifted = logits - logits.max(axis=1, keepdims=True)
        loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
        found = {"val_accuracy": float((logits.argmax(axis=1) == labels).mean()), "val_loss": float(loss.mean())}
        kept = {name: value for name, value in trained.metrics.items() if not name.startswith("train_acc")}
        return replace(trained, metrics={**kept, **found, "val_n": len(labels)})
