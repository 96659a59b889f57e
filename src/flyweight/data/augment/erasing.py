"""Random erasing: a rectangle of each chosen image becomes zero or noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_boxes(
    count: int,
    height: int | Tensor,
    width: int | Tensor,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Draw (count, 4) int64 boxes of top, left, height, width: area share uniform, aspect ratio log-uniform.

    Args:
        height: Of the images in px, one for all or (count,); `width` likewise.

    Source: torchvision's RandomErasing and RandomResizedCrop. Changed: a box that would not fit is clipped to the
    image in place of drawn again, so that each image costs the same and no image falls back to a fixed crop.
    """
    high, wide = (torch.as_tensor(side, dtype=torch.float32).expand(count) for side in (height, width))
    draws = torch.rand(4, count, generator=generator)
    pixels = (area[0] + (area[1] - area[0]) * draws[0]) * (high * wide)
    low, top_ratio = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (top_ratio - low) * draws[1])  # width / height
    box_high = torch.minimum((pixels / aspect).sqrt().round().clamp(min=1), high)
    box_wide = torch.minimum((pixels * aspect).sqrt().round().clamp(min=1), wide)
    top = torch.minimum((draws[2] * (high - box_high + 1)).floor(), high - box_high)
    left = torch.minimum((draws[3] * (wide - box_wide + 1)).floor(), wide - box_wide)
    return torch.stack((top, left, box_high, box_wide), 1).long()


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
