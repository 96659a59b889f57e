"""Train on: what pruning or folding took from the answers is learned again, from the labels."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from flyweight.compress.context import Context, Progressing
from flyweight.compress.retrain import continued, retrain
from flyweight.compress.step import Options
from flyweight.train.recipe import load_recipe
from flyweight.train.trained import Trained

LR_FACTOR = 0.3  # of the run's own peak


class Finetune(Options):
    """How long, and at what rate.

    Attributes:
        lr: Peak learning rate; None: 0.3 of the run's own.
        images: Training images in an epoch, drawn anew for each; None: all.
        recipe: Shipped recipe or file that trains in place of the run's own; its network is not looked at.
    """

    epochs: int = Field(default=3, ge=1)
    lr: float | None = Field(default=None, gt=0.0)
    images: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0)
    recipe: str | None = None


def finetune(trained: Trained, context: Context, options: Finetune) -> Progressing:
    """Return the run after a few more epochs, on whatever its network is now: pruned, folded, or on int8 levels."""
    own: dict[str, Any] = {"seed": options.seed, "epoch_images": options.images}
    if options.recipe is not None:
        given = load_recipe(options.recipe)
        based = continued(trained, name="finetune", epochs=options.epochs, lr=options.lr, lr_factor=LR_FACTOR, **own)
        own |= {"augment": given.augment.model_dump(), "optim": given.optim.model_dump()}
        own |= {"batch_size": given.batch_size, "label_smoothing": given.label_smoothing}
        recipe = type(based).model_validate({**based.model_dump(), **own})
    else:
        recipe = continued(trained, name="finetune", epochs=options.epochs, lr=options.lr, lr_factor=LR_FACTOR, **own)
    return (yield from retrain(trained, context, recipe))
