"""How training images are changed at random: the `augment` part of a recipe. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0)]


class RandAugmentPolicy(BaseModel):
    """RandAugment: `ops` random operations in a row, each at `magnitude` of 31 bins.

    Source: Cubuk et al. 2019 (arXiv:1909.13719), the 14 operations and bins of torchvision.transforms.RandAugment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ops: int = Field(default=2, ge=1, le=8)
    magnitude: int = Field(default=9, ge=0, le=30)


class AugmentPolicy(BaseModel):
    """Every random change of training images, in the order in which they are made. The default changes nothing.

    Attributes:
        random_resized_crop: Range of the crop's share of the image area, e.g. (0.35, 1.0); None: no random crop.
        crop_ratio: Range of the crop's aspect ratio (width / height), drawn log-uniformly.
        hflip: Probability of a left-right flip.
        vflip: Probability of an upside-down flip.
        shift: Largest shift in px in each direction (pad by `shift`, crop back at random).
        shift_fill: What the shift uncovers: zero, reflect (without repeating the edge) or the edge pixel.
        rotate: Largest rotation in degrees, either way.
        scale: Range of zoom factors; None: none.
        translate: Largest translation as a share of the side, either way.
        shear: Largest shear in degrees, either way, on each axis.
        randaugment: RandAugment in place of, or with, the operations above; None: none.
        trivial: TrivialAugmentWide: one random operation at a random magnitude (arXiv:2103.10158).
        brightness: Largest change b: factor in [max(0, 1 - b), 1 + b].
        contrast: As brightness.
        saturation: As brightness; without effect on one channel.
        hue: Largest turn of the hue, as a share of the circle (0 to 0.5); without effect on one channel.
        erase: Probability that a random rectangle is erased.
        erase_area: Range of the rectangle's share of the image area.
        erase_fill: What the rectangle becomes: zero, or uniform noise.
        mixup: Beta parameter of mixup (arXiv:1710.09412); 0: off.
        cutmix: Beta parameter of CutMix (arXiv:1905.04899); 0: off.
        mix_prob: Probability that an image is mixed at all.
        mix_switch: Probability of CutMix rather than mixup where both are on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    random_resized_crop: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: Probability = 0.0
    vflip: Probability = 0.0
    shift: int = Field(default=0, ge=0, le=256)
    shift_fill: Literal["zero", "reflect", "edge"] = "zero"
    rotate: float = Field(default=0.0, ge=0.0, le=180.0)
    scale: tuple[float, float] | None = None
    translate: float = Field(default=0.0, ge=0.0, le=1.0)
    shear: float = Field(default=0.0, ge=0.0, lt=90.0)
    randaugment: RandAugmentPolicy | None = None
    trivial: bool = False
    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: float = Field(default=0.0, ge=0.0, le=0.5)
    erase: Probability = 0.0
    erase_area: tuple[float, float] = (0.02, 0.33)
    erase_fill: Literal["zero", "noise"] = "zero"
    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    mix_prob: Probability = 1.0
    mix_switch: Probability = 0.5

    @model_validator(mode="after")
    def _ranges_go_up(self) -> AugmentPolicy:
        _check_range("random_resized_crop", self.random_resized_crop, above=0.0, most=1.0)
        _check_range("crop_ratio", self.crop_ratio, above=0.0)
        _check_range("scale", self.scale, above=0.0)
        _check_range("erase_area", self.erase_area, above=0.0, most=1.0)
        return self

    @property
    def mixes(self) -> bool:
        """True when batches carry targets (N, K) in place of labels (N,)."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_prob > 0

    @property
    def warps(self) -> bool:
        """True when rotate, scale, translate or shear is on: one affine resampling does them all."""
        return bool(self.rotate or self.translate or self.shear or self.scale not in (None, (1.0, 1.0)))


def _check_range(name: str, value: tuple[float, float] | None, *, above: float, most: float = float("inf")) -> None:
    if value is None:
        return
    low, high = value
    if not above < low <= high <= most:
        raise ValueError(f"{name} must be (low, high) with {above:g} < low <= high <= {most:g}, not {value}")
