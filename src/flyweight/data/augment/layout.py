"""Whole batches of images as (N, H, W, C) memory, and the few moves that the machine does fast on it.

On a CPU numpy's take is several times faster than torch's on small elements (measured at 28 to 64 px: 0.2 against
0.8 to 8 µs an image for a crop), so the moves below use it there and torch's own elsewhere. Both give the same bits;
a test compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK_BYTES = 1 << 19  # of float32 pixels per pass; measured: smaller costs calls, larger leaves the cache


def channels_first(pixels: Tensor) -> Tensor:
    """View (N, H, W, C) memory as (N, C, H, W) in channels_last strides; nothing is copied."""
    return pixels.permute(0, 3, 1, 2)


def channels_last(images: Tensor) -> Tensor:
    """Return (N, C, H, W) images as contiguous (N, H, W, C) memory; copied only if they are laid out otherwise."""
    return images.permute(0, 2, 3, 1).contiguous()


def on_cpu(tensor: Tensor) -> bool:
    """True where numpy can work on the tensor's own memory."""
    return tensor.device.type == "cpu"


def take_pixels(pixels: Tensor, index: Tensor) -> Tensor:
    """Gather whole pixels: `pixels` (P, C) uint8 by `index` (...) int64 into (..., C)."""
    channels = pixels.shape[1]
    if not on_cpu(pixels):
        return pixels.index_select(0, index.reshape(-1)).reshape(*index.shape, channels)
    whole = pixels.numpy().reshape(-1).view(_pixel_type(channels))
    return torch.from_numpy(np.take(whole, index.numpy()).view(np.uint8)).view(*index.shape, channels)


def take_windows(pixels: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut one window of height x width out of each image of (N, H, W, C), at its own `top` and `left` (N,) int64."""
    count, high, wide, channels = pixels.shape
    shape = (count, high - height + 1, wide - width + 1, height, width, channels)
    row, column = wide * channels, channels
    strides = (high * row, row, column, row, column, 1)
    if not on_cpu(pixels):
        windows = pixels.as_strided(shape, strides)
        return windows[torch.arange(count, device=pixels.device), top.to(pixels.device), left.to(pixels.device)]
    view = np.lib.stride_tricks.as_strided(pixels.numpy(), shape, strides, writeable=False)
    return torch.from_numpy(view[np.arange(count), top.numpy(), left.numpy()])


def chunks(pixels: Tensor) -> list[slice]:
    """Cut a batch on the CPU so that a float32 copy of a part stays in a core's cache; elsewhere one part is all."""
    count = pixels.shape[0]
    if not on_cpu(pixels):
        return [slice(0, count)]
    step = max(1, CHUNK_BYTES // max(1, 4 * math.prod(pixels.shape[1:])))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def in_chunks(pixels: Tensor, change: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Return `change(part, *values of the part)` over a batch (N, ...), chunk by chunk, as one batch."""
    parts = chunks(pixels)
    if len(parts) == 1:
        return change(pixels, *values)
    return torch.cat([change(pixels[part], *(value[part] for value in values)) for part in parts])


def reorder(pixels: Tensor, order: Tensor) -> Tensor:
    """Return the images in another order (copied); cheap, because each image is one run of bytes."""
    return pixels.index_select(0, order.to(pixels.device))


def per_image(values: Tensor, pixels: Tensor) -> Tensor:
    """Shape one number per image, (N,), so that it meets (N, H, W, C) pixels on their device as float32."""
    return values.to(pixels.device, torch.float32).view(-1, 1, 1, 1)


def _pixel_type(channels: int) -> np.dtype[np.generic]:
    plain = {1: np.uint8, 2: np.uint16, 4: np.uint32}
    return np.dtype(plain[channels]) if channels in plain else np.dtype(f"V{channels}")
