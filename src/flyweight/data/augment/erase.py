"""Random erasing: a rectangle of each chosen image becomes zero or noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_boxes(
    count: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Draw (count, 4) int64 boxes of top, left, height, width: area share uniform, aspect ratio log-uniform.

    Source: torchvision's RandomErasing and RandomResizedCrop. Changed: a box that would not fit is clipped to the
    image in place of drawn again, so that each image costs the same and no image falls back to a fixed crop.
    """
    draws = torch.rand(4, count, generator=generator)
    pixels = (area[0] + (area[1] - area[0]) * draws[0]) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[1])  # width / height
    tall = (pixels / aspect).sqrt().round().clamp(1, height)
    wide = (pixels * aspect).sqrt().round().clamp(1, width)
    top = (draws[2] * (height - tall + 1)).floor().clamp(max=height - 1)
    left = (draws[3] * (width - wide + 1)).floor().clamp(max=width - 1)
    return torch.stack((torch.minimum(top, height - tall), torch.minimum(left, width - wide), tall, wide), 1).long()


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return (N, H, W, 1) bool, true inside each box of top, left, height, width."""
    top, left, tall, wide = boxes.unbind(1)
    rows, columns = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).unsqueeze(3)


def erase(pixels: Tensor, boxes: Tensor, value: Tensor | int = 0) -> Tensor:
    """Put `value` (a number, or (N, H, W, C) uint8) into each image's box; a box of height 0 erases nothing."""
    mask = box_mask(boxes.to(pixels.device), pixels.shape[1], pixels.shape[2])
    if isinstance(value, int):
        return pixels.masked_fill(mask, value)
    return torch.where(mask, value.to(pixels.device), pixels)
