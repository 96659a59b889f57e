"""Random changes of whole batches of images, each image with its own draw. The only random source is the generator."""

from __future__ import annotations

import torch
from torch import Tensor

from flyweight.data.augment import colour
from flyweight.data.augment.erasing import erase, random_boxes
from flyweight.data.augment.geometry import affine_bilinear, affine_matrices, hflip, resized_crop, shift, vflip
from flyweight.data.augment.layout import channels_first, channels_last
from flyweight.data.augment.mixing import mix
from flyweight.data.augment.operations import randaugment, trivial_augment
from flyweight.data.policy import AugmentPolicy

__all__ = ["augment", "augment_pixels", "mix"]

_ERASE_RATIO = (0.3, 3.3)


def augment(images: Tensor, policy: AugmentPolicy, generator: torch.Generator) -> Tensor:
    """Return the images changed as the policy says, but for mixing (`mix`), which needs the targets too.

    Args:
        images: (N, C, H, W) uint8, best in channels_last memory; not changed themselves.
        policy: What may happen, and how strongly.
        generator: On the CPU.

    Returns:
        (N, C, H, W) uint8 in channels_last memory, of the same size.
    """
    return channels_first(augment_pixels(channels_last(images), policy, generator))


def augment_pixels(
    pixels: Tensor, policy: AugmentPolicy, generator: torch.Generator, *, cropped: bool = False
) -> Tensor:
    """As `augment`, over (N, H, W, C) memory. `cropped`: the random resized crop was already made."""
    pixels = _move(pixels, policy, generator, cropped)
    if policy.randaugment is not None:
        pixels = randaugment(pixels, policy.randaugment.ops, policy.randaugment.magnitude, generator)
    if policy.trivial:
        pixels = trivial_augment(pixels, generator)
    pixels = _recolour(pixels, policy, generator)
    return _erase(pixels, policy, generator) if policy.erase else pixels


def _move(pixels: Tensor, policy: AugmentPolicy, generator: torch.Generator, cropped: bool) -> Tensor:
    count, height, width, _ = pixels.shape
    if policy.random_resized_crop and not cropped:
        boxes = random_boxes(count, height, width, policy.random_resized_crop, policy.crop_ratio, generator)
        pixels = resized_crop(pixels, boxes, height)
    if policy.hflip:
        pixels = hflip(pixels, torch.rand(count, generator=generator) < policy.hflip)
    if policy.vflip:
        pixels = vflip(pixels, torch.rand(count, generator=generator) < policy.vflip)
    if policy.shift:
        most = policy.shift
        moves = torch.randint(-most, most + 1, (2, count), generator=generator)
        pixels = shift(pixels, moves[0], moves[1], most=most, fill=policy.shift_fill)
    return affine_bilinear(pixels, _warps(pixels, policy, generator)) if policy.warps else pixels


def _warps(pixels: Tensor, policy: AugmentPolicy, generator: torch.Generator) -> Tensor:
    count, height, width, _ = pixels.shape
    draws = torch.rand(6, count, generator=generator)
    either_way = draws * 2 - 1
    low, high = policy.scale or (1.0, 1.0)
    return affine_matrices(
        either_way[0] * policy.rotate,
        either_way[1] * policy.translate * width,
        either_way[2] * policy.translate * height,
        low + (high - low) * draws[3],
        either_way[4] * policy.shear,
        either_way[5] * policy.shear,
    )


def _recolour(pixels: Tensor, policy: AugmentPolicy, generator: torch.Generator) -> Tensor:
    count = len(pixels)
    factors = (
        (policy.brightness, colour.brightness),
        (policy.contrast, colour.contrast),
        (policy.saturation, colour.saturation),
    )
    for strength, change in factors:
        if strength:
            low, high = max(0.0, 1.0 - strength), 1.0 + strength
            pixels = change(pixels, low + (high - low) * torch.rand(count, generator=generator))
    if policy.hue:
        pixels = colour.hue(pixels, (torch.rand(count, generator=generator) * 2 - 1) * policy.hue)
    return pixels


def _erase(pixels: Tensor, policy: AugmentPolicy, generator: torch.Generator) -> Tensor:
    count, height, width, _ = pixels.shape
    chosen = torch.rand(count, generator=generator) < policy.erase
    boxes = random_boxes(count, height, width, policy.erase_area, _ERASE_RATIO, generator)
    boxes[~chosen, 2] = 0
    if policy.erase_fill == "zero":
        return erase(pixels, boxes)
    return erase(pixels, boxes, torch.randint(0, 256, pixels.shape, generator=generator, dtype=torch.uint8))
