"""RandAugment and TrivialAugmentWide over whole batches.

The images are sorted by the operation each drew, so an operation runs once, on one slice, and the five geometric
ones share a single resampling. Source of operations, magnitudes and their signs: torchvision.transforms.RandAugment
and TrivialAugmentWide (nearest resampling, zero fill).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flyweight.data.augment import colour
from flyweight.data.augment.geometry import affine_matrices, affine_nearest
from flyweight.data.augment.layout import reorder

NUM_BINS = 31
# Geometric operations stand together: their images are one slice of the sorted batch.
OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
SIGNED = frozenset(OPERATIONS[1:10])
_FIRST_COLOUR = OPERATIONS.index("Brightness")
_ROWS = 2 * NUM_BINS  # of each operation: every bin, as it is and negative


@dataclass(frozen=True)
class Space:
    """What an operation does at each bin, for one image size.

    A row stands for (operation, bin, sign); `row_of` gives its number.

    Attributes:
        magnitudes: (14 * 62,) shares, px, degrees, factors less 1, bits or values.
        matrices: (14 * 62, 2, 3) maps from output to source px, of the geometric operations.
    """

    magnitudes: Tensor
    matrices: Tensor


def row_of(operation: Tensor, magnitude_bin: Tensor | int, negative: Tensor) -> Tensor:
    """Return (N,) rows of a Space. `negative` (N,) int64 is 0 or 1, without effect where an operation has no sign."""
    return operation * _ROWS + magnitude_bin * 2 + negative


@lru_cache(maxsize=16)
def randaugment_space(height: int, width: int) -> Space:
    """Return the space of RandAugment."""
    return _space(height, width, 0.3, 150.0 / 331.0 * width, 150.0 / 331.0 * height, 30.0, 0.9, 4)


@lru_cache(maxsize=16)
def trivial_space(height: int, width: int) -> Space:
    """Return the space of TrivialAugmentWide."""
    return _space(height, width, 0.99, 32.0, 32.0, 135.0, 0.99, 6)


def _space(
    height: int, width: int, shear: float, across: float, down: float, degrees: float, factor: float, bits: int
) -> Space:
    tops = (0.0, shear, shear, across, down, degrees, factor, factor, factor, factor)
    rising = [torch.linspace(0.0, top, NUM_BINS) for top in tops]
    posterize = 8 - (torch.arange(NUM_BINS) / ((NUM_BINS - 1) / bits)).round()
    nothing = torch.zeros(NUM_BINS)
    bins = torch.stack([*rising, posterize, torch.linspace(255.0, 0.0, NUM_BINS), nothing, nothing])
    sign = torch.tensor([[1.0, -1.0] if name in SIGNED else [1.0, 1.0] for name in OPERATIONS])
    magnitudes = (bins.unsqueeze(2) * sign.unsqueeze(1)).view(-1)
    operation = torch.arange(len(OPERATIONS)).repeat_interleave(_ROWS)
    return Space(magnitudes, _matrices(operation, magnitudes, height, width))


def _matrices(operation: Tensor, magnitude: Tensor, height: int, width: int) -> Tensor:
    def only(name: str, value: Tensor) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), value, 0.0)

    degrees = torch.rad2deg(torch.atan(magnitude))
    # Shears turn about the top left corner, as in the AutoAugment paper's code; the rest about the centre.
    sheared = (operation == OPERATIONS.index("ShearX")) | (operation == OPERATIONS.index("ShearY"))
    corner = torch.tensor([-width / 2, -height / 2])
    return affine_matrices(
        -only("Rotate", magnitude),
        only("TranslateX", magnitude.trunc()),
        only("TranslateY", magnitude.trunc()),
        torch.ones(len(operation)),
        only("ShearX", degrees),
        only("ShearY", degrees),
        center=torch.where(sheared.unsqueeze(1), corner, 0.0),
    )


def randaugment(pixels: Tensor, ops: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Apply `ops` random operations in a row to each image, each at bin `magnitude` with a random sign."""
    space, count = randaugment_space(pixels.shape[1], pixels.shape[2]), len(pixels)
    for _ in range(ops):
        operation = torch.randint(len(OPERATIONS), (count,), generator=generator)
        negative = torch.randint(2, (count,), generator=generator)
        pixels = apply_operations(pixels, row_of(operation, magnitude, negative), space)
    return pixels


def trivial_augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Apply one random operation to each image, at a random bin with a random sign."""
    rows = torch.randint(len(OPERATIONS) * _ROWS, (len(pixels),), generator=generator)
    return apply_operations(pixels, rows, trivial_space(pixels.shape[1], pixels.shape[2]))


def apply_operations(pixels: Tensor, rows: Tensor, space: Space) -> Tensor:
    """Apply to each image of (N, H, W, C) the operation, bin and sign of its row (N,) of the space."""
    rows, order = torch.sort(rows, stable=True)
    result = reorder(pixels, order)
    bounds = torch.arange(0, (len(OPERATIONS) + 1) * _ROWS, _ROWS)
    starts = torch.searchsorted(rows, bounds).tolist()  # of each operation's images
    warped = slice(starts[1], starts[_FIRST_COLOUR])
    if warped.start < warped.stop:
        result[warped] = affine_nearest(result[warped], space.matrices[rows[warped]])
    magnitudes = space.magnitudes[rows]
    for number in range(_FIRST_COLOUR, len(OPERATIONS)):
        part = slice(starts[number], starts[number + 1])
        if part.start < part.stop:
            result[part] = _recolour(OPERATIONS[number], result[part], magnitudes[part])
    return reorder(result, torch.argsort(order))


def _recolour(name: str, pixels: Tensor, magnitude: Tensor) -> Tensor:
    if name == "Posterize":
        return colour.posterize(pixels, magnitude.long())
    if name == "Solarize":
        return colour.solarize(pixels, magnitude)
    if name == "AutoContrast":
        return colour.autocontrast(pixels)
    if name == "Equalize":
        return colour.equalize(pixels)
    return _FACTORS[name](pixels, 1.0 + magnitude)


_FACTORS = {
    "Brightness": colour.brightness,
    "Color": colour.saturation,
    "Contrast": colour.contrast,
    "Sharpness": colour.sharpness,
}
