"""Which networks, image sizes and recipes `fit` tries for a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flyweight.data.policy import AugmentPolicy
from flyweight.errors import BudgetError
from flyweight.models.zoo import find
from flyweight.train.recipe import DataPart, ModelPart, OptimPart, Recipe, SchedulePart

SMALL_INPUT = 40  # px; up to here the tiny networks come first and ImageNet networks are few
TINY = (
    "tiny_cnn_8",
    "tiny_cnn_16",
    "tiny_cnn_24",
    "tiny_resnet8_8",
    "tiny_resnet8_16",
    "tiny_resnet8_24",
    "tiny_ds_16",
    "tiny_sep_16",
    "tiny_sep_32",
)
LARGER = ("tiny_resnet14_16", "mobilenetv3_small_050", "shufflenet_v2_x0_5")


@dataclass(frozen=True)
class Candidate:
    """A network at an image size (px), in the precision it would ship in; `pretrained` names weights to begin with."""

    model: str
    image_size: int
    precision: Literal["fp32", "int8"] = "fp32"
    pretrained: str | None = None

    @property
    def name(self) -> str:
        """Return e.g. `tiny_cnn_16@28`, also the name of its folder."""
        begun = "-pretrained" if self.pretrained else ""
        return f"{self.model}@{self.image_size}{begun}" + ("-int8" if self.precision == "int8" else "")


def candidates_for(native: int, models: Iterable[str] = (), sizes: Iterable[int] = ()) -> list[Candidate]:
    """Return every network at every size.

    Args:
        native: Side in px that suits the data.
        models: Names of the catalogue; by default a selection from 3k to 300k parameters and two of ImageNet's.
        sizes: Image sizes in px; by default the native one and about two thirds of it.

    Raises:
        ModelError: There is no such network.
        BudgetError: There are fewer than two candidates to choose from.
    """
    names = tuple(models) or (*TINY, *LARGER)
    for name in names:
        find(name)
    found = [Candidate(name, size) for size in (tuple(sizes) or default_sizes(native)) for name in names]
    if not found:
        raise BudgetError("there is no candidate to fit", do="name at least one network with --models")
    return list(dict.fromkeys(found))


def default_sizes(native: int) -> tuple[int, int]:
    """Return the native side and about two thirds of it, a multiple of 4, at least 12 px."""
    smaller = max(12, round(native * 2 / 3 / 4) * 4)
    return (native, smaller) if smaller < native else (native, native + 4)


def recipe_for(candidate: Candidate, *, channels: int, seed: int, base: Recipe | None = None) -> Recipe:
    """Return the recipe a candidate trains with: the user's own, or one that suits small networks.

    One channel is shifted only: grey images are often digits or signs, which a flip would change. Colour images are
    flipped too. Photos larger than 40 px are cropped at random. Muon, since the rounds are short and it is good early
    (docs/decisions/0005-muon-in-fit.md).
    """
    base = base or Recipe(
        augment=_augment(candidate.image_size, channels),
        optim=OptimPart(name="muon", lr=0.03, weight_decay=0.01),
        schedule=SchedulePart(name="cosine", warmup_fraction=0.15),
        batch_size=128,
        ema_decay=0.998,
        clip_grad_norm=5.0,
    )
    data = DataPart.model_validate({**base.data.model_dump(), "image_size": candidate.image_size, "channels": channels})
    return base.model_copy(
        update={
            "name": candidate.name,
            "model": ModelPart(name=candidate.model, pretrained=candidate.pretrained),
            "data": data,
            "seed": seed,
        }
    )


def _augment(image_size: int, channels: int) -> AugmentPolicy:
    if image_size > SMALL_INPUT:
        return AugmentPolicy(random_resized_crop=(0.4, 1.0), hflip=0.5 if channels > 1 else 0.0)
    shift = max(1, image_size // 12)
    return AugmentPolicy(shift=shift, shift_fill="reflect", hflip=0.5 if channels > 1 else 0.0)
