"""Moves of pixels: flips, shifts, affine maps and crops, each with its own parameters for every image of a batch.

All take (N, H, W, C) uint8 memory and give uint8 back. The parameters are tensors (N,) on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.data.augment.layout import channels_first, in_chunks, reorder, take_pixels, take_windows


def hflip(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images where `chosen` (N,) bool, left to right."""
    return _flip(pixels, chosen, dim=3)


def vflip(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images where `chosen` (N,) bool, top to bottom."""
    return _flip(pixels, chosen, dim=2)


def _flip(pixels: Tensor, chosen: Tensor, dim: int) -> Tensor:
    # Sort the chosen to the front, flip that one slice, sort back: two runs of memcpy cost less than a masked write.
    order = torch.argsort(chosen, descending=True, stable=True)
    count = int(chosen.sum())
    front = reorder(pixels, order)
    front[:count] = channels_first(front[:count]).flip(dim).permute(0, 2, 3, 1)
    return reorder(front, torch.argsort(order))


def shift(pixels: Tensor, dy: Tensor, dx: Tensor, *, most: int, fill: str = "zero") -> Tensor:
    """Move each image's window by (dy, dx) px: pad by `most`, then crop at (most + dy, most + dx).

    Args:
        pixels: (N, H, W, C) uint8.
        dy: (N,) int64 in [-most, most]; positive moves the content up.
        dx: (N,) int64 in [-most, most]; positive moves the content left.
        most: Padding in px on every side.
        fill: "zero", "reflect" or "edge".
    """
    height, width = pixels.shape[1:3]
    return take_windows(_pad(pixels, most, fill), dy + most, dx + most, height, width)


def _pad(pixels: Tensor, most: int, fill: str) -> Tensor:
    if fill == "zero":
        return functional.pad(pixels, (0, 0, most, most, most, most))
    height, width = pixels.shape[1:3]
    rows, columns = _source(height, most, fill), _source(width, most, fill)
    return pixels.index_select(1, rows.to(pixels.device)).index_select(2, columns.to(pixels.device))


def _source(side: int, most: int, fill: str) -> Tensor:
    """Where each padded row (or column) comes from; reflection bounces as often as a small image needs."""
    place = torch.arange(-most, side + most)
    if fill == "edge" or side == 1:
        return place.clamp(0, side - 1)
    place = place.remainder(2 * side - 2)
    return torch.minimum(place, 2 * side - 2 - place)


def affine_matrices(
    rotate: Tensor,
    translate_x: Tensor,
    translate_y: Tensor,
    scale: Tensor,
    shear_x: Tensor,
    shear_y: Tensor,
    *,
    center: tuple[float, float] | Tensor = (0.0, 0.0),
) -> Tensor:
    """Return the (N, 2, 3) maps from output to source, in px around the image centre.

    Angles in degrees (positive turns clockwise, as in torchvision's affine), translations in px, `center` (x, y) in
    px from the image centre, one for all or (N, 2).

    Source: torchvision.transforms.functional._get_inverse_affine_matrix, one image at a time there.
    """
    angle, sx, sy = (torch.deg2rad(degrees.double()) for degrees in (rotate, shear_x, shear_y))
    cos, sin = torch.cos(angle - sy) / torch.cos(sy), torch.sin(angle - sy) / torch.cos(sy)
    a, b = cos, -cos * torch.tan(sx) - torch.sin(angle)
    c, d = sin, -sin * torch.tan(sx) + torch.cos(angle)
    linear = torch.stack((d, -b, -c, a), 1).view(-1, 2, 2) / scale.double().view(-1, 1, 1)
    middle = torch.as_tensor(center, dtype=torch.float64).expand(len(angle), 2)
    moved = middle + torch.stack((translate_x, translate_y), 1).double()
    offset = middle - (linear @ moved.unsqueeze(2)).squeeze(2)
    return torch.cat((linear, offset.unsqueeze(2)), 2).float()


def affine_nearest(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Resample by (N, 2, 3) maps, each output pixel taking the nearest source pixel, zero outside."""
    count, height, width, channels = pixels.shape
    x, y = source_coordinates(matrices.to(pixels.device), (height, width), (height, width))
    # One ring of zeros around each image stands for everything outside it.
    index = y.round_().clamp_(-1, height).mul_(width + 2).add_(x.round_().clamp_(-1, width)).to(torch.int64)
    start = torch.arange(count, device=pixels.device).mul_((height + 2) * (width + 2)).add_(width + 3)
    ringed = functional.pad(pixels, (0, 0, 1, 1, 1, 1))
    return take_pixels(ringed.view(-1, channels), index.add_(start.view(-1, 1, 1)))


def affine_bilinear(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Resample by (N, 2, 3) maps, bilinear, zero outside, rounded to uint8."""
    size = (pixels.shape[1], pixels.shape[2])

    def change(part: Tensor, maps: Tensor) -> Tensor:
        return _sample(part, *source_coordinates(maps, size, size))

    return in_chunks(pixels, change, matrices.to(pixels.device))


def resized_crop(pixels: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut each image's own box and enlarge it to size x size, bilinear.

    No antialiasing: right where boxes are no larger than `size`, as all are in a store of that size. Larger ones go
    through `resized_crop_one`.

    Args:
        pixels: (N, H, W, C) uint8.
        boxes: (N, 4) int64 of top, left, height, width in px.
        size: Side of the result in px.
    """

    def change(part: Tensor, places: Tensor) -> Tensor:
        top, left, height, width = places.unbind(1)
        y, x = _stretched(top, height, size), _stretched(left, width, size)
        shape = (len(part), size, size)
        return _sample(part, x[:, None, :].expand(shape), y[:, :, None].expand(shape))

    return in_chunks(pixels, change, boxes.to(pixels.device, torch.float32))


def resized_crop_one(pixels: Tensor, size: int) -> Tensor:
    """Resize one (H, W, C) uint8 crop to size x size, bilinear and antialiased, as torchvision's resized_crop does."""
    if pixels.shape[0] == size and pixels.shape[1] == size:
        return pixels
    image = pixels.permute(2, 0, 1).unsqueeze(0)
    resized = functional.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
    return resized.squeeze(0).permute(1, 2, 0)


def source_coordinates(matrices: Tensor, source: tuple[int, int], target: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return x and y, (N, H, W) float32 in source px (0 = centre of the first), of every target pixel."""
    device = matrices.device
    across = torch.arange(target[1], dtype=torch.float32, device=device) + (0.5 - target[1] / 2)
    down = torch.arange(target[0], dtype=torch.float32, device=device) + (0.5 - target[0] / 2)
    columns = matrices[:, :, 0, None] * across
    rows = matrices[:, :, 1, None] * down + matrices[:, :, 2, None]
    x = columns[:, 0, None, :] + (rows[:, 0] + (source[1] / 2 - 0.5))[:, :, None]
    y = columns[:, 1, None, :] + (rows[:, 1] + (source[0] / 2 - 0.5))[:, :, None]
    return x, y


def _stretched(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Source places (N, size) of a run stretched to `size`, never read past its own ends."""
    inside = (torch.arange(size, device=start.device) + 0.5) * (length / size).unsqueeze(1) - 0.5
    return start.unsqueeze(1) + torch.minimum(inside.clamp_(min=0), (length - 1).unsqueeze(1))


def _sample(pixels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    height, width = pixels.shape[1:3]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), 3)
    sampled = functional.grid_sample(channels_first(pixels.float()), grid, mode="bilinear", align_corners=False)
    return sampled.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
