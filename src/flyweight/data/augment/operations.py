"""RandAugment and TrivialAugmentWide over whole batches.

The images are sorted by the operation each drew, so an operation runs once, on one slice, and the five geometric
ones share a single resampling. Source of operations, magnitudes and their signs: torchvision.transforms.RandAugment
and TrivialAugmentWide (nearest resampling, zero fill).
"""

from __future__ import annotations

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
_FIRST_COLOUR = OPERATIONS.index("Brightness")
_SIGNED = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)


def randaugment_bins(height: int, width: int) -> Tensor:
    """Return the magnitudes (14, 31) of RandAugment: shares, px, degrees, factors, bits, values."""
    return _bins(0.3, 150.0 / 331.0 * width, 150.0 / 331.0 * height, 30.0, 0.9, 4)


def trivial_bins() -> Tensor:
    """Return the magnitudes (14, 31) of TrivialAugmentWide."""
    return _bins(0.99, 32.0, 32.0, 135.0, 0.99, 6)


def _bins(shear: float, across: float, down: float, degrees: float, factor: float, bits: int) -> Tensor:
    tops = (0.0, shear, shear, across, down, degrees, factor, factor, factor, factor)
    rising = [torch.linspace(0.0, top, NUM_BINS) for top in tops]
    posterize = 8 - (torch.arange(NUM_BINS) / ((NUM_BINS - 1) / bits)).round()
    nothing = torch.zeros(NUM_BINS)
    return torch.stack([*rising, posterize, torch.linspace(255.0, 0.0, NUM_BINS), nothing, nothing])


def randaugment(pixels: Tensor, ops: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Apply `ops` random operations in a row to each image, each at bin `magnitude` with a random sign."""
    table = randaugment_bins(pixels.shape[1], pixels.shape[2])
    for _ in range(ops):
        operation = torch.randint(len(OPERATIONS), (len(pixels),), generator=generator)
        pixels = apply_operations(pixels, operation, _signed(table[operation, magnitude], operation, generator))
    return pixels


def trivial_augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Apply one random operation to each image, at a random bin with a random sign."""
    operation = torch.randint(len(OPERATIONS), (len(pixels),), generator=generator)
    bins = torch.randint(NUM_BINS, (len(pixels),), generator=generator)
    return apply_operations(pixels, operation, _signed(trivial_bins()[operation, bins], operation, generator))


def _signed(magnitude: Tensor, operation: Tensor, generator: torch.Generator) -> Tensor:
    negative = torch.randint(2, magnitude.shape, generator=generator).bool() & _SIGNED[operation]
    return torch.where(negative, -magnitude, magnitude)


def apply_operations(pixels: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Apply to each image the operation (N,) (an index of OPERATIONS) it drew, at its magnitude (N,)."""
    order = torch.argsort(operation, stable=True)
    sorted_pixels, magnitude, operation = reorder(pixels, order), magnitude[order], operation[order]
    ends = torch.bincount(operation, minlength=len(OPERATIONS)).cumsum(0).tolist()
    warped = slice(ends[0], ends[_FIRST_COLOUR - 1])
    if warped.start < warped.stop:
        matrices = _matrices(operation[warped], magnitude[warped], sorted_pixels.shape[1], sorted_pixels.shape[2])
        sorted_pixels[warped] = affine_nearest(sorted_pixels[warped], matrices)
    for number in range(_FIRST_COLOUR, len(OPERATIONS)):
        part = slice(ends[number - 1], ends[number])
        if part.start < part.stop:
            sorted_pixels[part] = _recolour(OPERATIONS[number], sorted_pixels[part], magnitude[part])
    return reorder(sorted_pixels, torch.argsort(order))


def _matrices(operation: Tensor, magnitude: Tensor, height: int, width: int) -> Tensor:
    def only(name: str, value: Tensor) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), value, 0.0)

    degrees = torch.rad2deg(torch.atan(magnitude))
    # Shears turn about the top left corner, as in the AutoAugment paper's code; the rest about the centre.
    sheared = operation <= OPERATIONS.index("ShearY")
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


def _recolour(name: str, pixels: Tensor, magnitude: Tensor) -> Tensor:
    if name == "Posterize":
        return colour.posterize(pixels, magnitude.long())
    if name == "Solarize":
        return colour.solarize(pixels, magnitude)
    if name == "AutoContrast":
        return colour.autocontrast(pixels)
    if name == "Equalize":
        return colour.equalize(pixels)
    change = {
        "Brightness": colour.brightness,
        "Color": colour.saturation,
        "Contrast": colour.contrast,
        "Sharpness": colour.sharpness,
    }[name]
    return change(pixels, 1.0 + magnitude)
