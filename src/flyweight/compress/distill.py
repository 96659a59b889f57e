"""Train on with teachers: their answers on the same augmented images, and what they see before their last layer.

A student pruned from a run learns fastest from that run; larger teachers and several of them are named.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from flyweight.compress.context import Context, Progressing, Said
from flyweight.compress.retrain import continued, retrain
from flyweight.compress.step import Options
from flyweight.train.recipe import DistillPart
from flyweight.train.trained import Trained

# What published recipes say of the loss; their epochs and rates are for ImageNet from scratch and are not taken over.
PRESETS: dict[str, dict[str, Any]] = {
    # Liu et al. 2024 (arXiv:2404.11202), section 5.2 and the defaults of the authors' train.py: cross-entropy and
    # distillation in equal parts, at temperature 1; no mixup or cutmix, which made compact networks worse; a running
    # average of the weights.
    "ghostnetv3": {"weight": 0.5, "temperature": 1.0, "mixes": False, "ema_decay": 0.998},
    # Wu et al. 2022 (arXiv:2207.10666), section 3.1: the teacher's probabilities alone, no labels, its answers kept
    # on disk. In pretraining with a teacher mixup and cutmix are off (configs/22k_distill of the authors).
    "tinyvit": {"weight": 1.0, "temperature": 1.0, "mixes": False, "cached": True},
}


class Distill(Options):
    """Which teachers, and how they are listened to.

    Attributes:
        teacher: Folders of finished runs, joined by "+": the mean of their answers is learned. None: the run before the
            first step.
        features: Weight of the similarity of features (`train.loss.similarity`) beside the rest of the loss.
        cached: Keep the teachers' answers on disk and read them when the same images come again.
        preset: ghostnetv3 or tinyvit: weight, temperature and augmentation as published; options given here go before.
        lr: Peak learning rate; None: 0.3 of the run's own.
    """

    teacher: str | None = None
    weight: float | None = Field(default=None, gt=0.0, le=1.0)
    temperature: float | None = Field(default=None, gt=0.0)
    features: float = Field(default=0.0, ge=0.0)
    cached: bool | None = None
    preset: Literal["ghostnetv3", "tinyvit"] | None = None
    epochs: int = Field(default=5, ge=1)
    lr: float | None = Field(default=None, gt=0.0)
    images: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0)


def distill(trained: Trained, context: Context, options: Distill) -> Progressing:
    """Return the run after a few more epochs with teachers.

    Raises:
        ModelError: A teacher is no finished run, or knows other classes or pixels.
    """
    preset = PRESETS.get(options.preset or "", {})
    teachers = [name.strip() for name in (options.teacher or str(context.original)).split("+") if name.strip()]
    part = DistillPart(
        teacher=teachers[0],
        others=tuple(teachers[1:]),
        weight=_first(options.weight, preset.get("weight"), 0.9),
        temperature=_first(options.temperature, preset.get("temperature"), 4.0),
        features=options.features,
        cached=_first(options.cached, preset.get("cached"), False),
    )
    more: dict[str, Any] = {"distill": part.model_dump(), "epoch_images": options.images, "seed": options.seed}
    if "ema_decay" in preset:
        more["ema_decay"] = preset["ema_decay"]
    recipe = continued(trained, name="distill", epochs=options.epochs, lr=options.lr, lr_factor=0.3, **more)
    if preset.get("mixes") is False:
        plain = recipe.augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
        recipe = recipe.model_copy(update={"augment": plain})
    yield Said(f"{len(teachers)} teacher{'s' * (len(teachers) > 1)}, weight {part.weight:g} at {part.temperature:g}")
    return (yield from retrain(trained, context, recipe))


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
