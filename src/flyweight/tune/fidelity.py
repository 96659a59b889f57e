"""How much of a full training each rung of a search does, over epochs, share of the images and image size. No torch.

Source: Jamieson and Talwalkar, arXiv:1502.07943; Li et al. (Hyperband), arXiv:1603.06560.
Changed: a rung is a complete, shorter training with its own schedule, so that its accuracy can be had again by anyone
from its recipe; a long schedule that is cut off ranks recipes by how fast they learn at a high rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flyweight.errors import RecipeError
from flyweight.train.recipe import Recipe

Shrinks = Literal["epochs", "data", "size"]
LEAST_SIZE, SIZE_STEP = 16, 4  # px


@dataclass(frozen=True)
class Rung:
    """One length of training.

    Attributes:
        epochs: Passes over its images.
        share: Of the training images, 0 to 1.
        image_size: Side in px; None: the recipe's own.
        images: Image passes it takes.
        cost: Image passes times pixels, in those of the full image size: what it takes of the processor.
    """

    epochs: int
    share: float
    image_size: int | None
    images: int
    cost: float

    def recipe(self, full: Recipe) -> Recipe:
        """Return the recipe of the full training cut to this rung."""
        data = full.data.model_copy(update={"train_fraction": self.share * full.data.train_fraction})
        if self.image_size is not None:
            data = data.model_copy(update={"image_size": self.image_size})
        return full.model_copy(update={"epochs": self.epochs, "data": data})


def plan_ladder(
    epochs: int,
    train_images: int,
    *,
    rungs: int,
    eta: float = 3.0,
    shrinks: Sequence[Shrinks] = ("epochs", "data"),
    image_size: int | None = None,
    least_images: int,
) -> tuple[Rung, ...]:
    """Return the rungs, shortest first; the last is the full training, each before it about `eta` times cheaper.

    Epochs go first, down to as few as each rung needs to stay a training (3, or all there are); then images.

    Args:
        shrinks: What may shrink. With `size`, a rung below the full one has images of two thirds the side.
        image_size: Side in px of the full training; needed to shrink it.
        least_images: Training images that a rung keeps of the data.

    Raises:
        RecipeError: The full training is too short for so many rungs.
    """
    found = [Rung(epochs, 1.0, None, epochs * train_images, float(epochs * train_images))]
    for depth in range(1, rungs):
        wanted = epochs * train_images / eta**depth
        size = _side(image_size, depth) if "size" in shrinks else None
        scale = (size / image_size) ** 2 if size and image_size else 1.0
        found.append(_shortened(epochs, train_images, wanted / scale, shrinks, least_images, size, scale))
    for longer, shorter in itertools.pairwise(found):
        if shorter.cost >= 0.8 * longer.cost:
            raise RecipeError(
                f"{rungs} rungs, each {eta:g} times shorter, of {epochs} epochs × {train_images:,} images: the rung of "
                f"{shorter.images:,} image passes cannot be made shorter",
                do="ask for fewer --rungs, more epochs, or let more shrink (--shrink epochs,data,size)",
                more="docs/tuning.md#rungs",
            )
    return tuple(reversed(found))


def _shortened(
    epochs: int, images: int, wanted: float, shrinks: Sequence[Shrinks], least: int, size: int | None, scale: float
) -> Rung:
    few = min(3, epochs)
    passes = max(few, math.floor(wanted / images + 0.5)) if "epochs" in shrinks else epochs
    passes = min(passes, epochs)
    share = min(1.0, max(wanted / (passes * images), least / images)) if "data" in shrinks else 1.0
    kept = round(share * images)
    return Rung(passes, share, size, passes * kept, passes * kept * scale)


def _side(full: int | None, depth: int) -> int | None:
    if full is None:
        return None
    return max(min(LEAST_SIZE, full), round(full * (2 / 3) ** depth / SIZE_STEP) * SIZE_STEP)
