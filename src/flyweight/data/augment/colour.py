"""Changes of pixel values, each with its own strength for every image: (N, H, W, C) uint8 in and out.

Checked against torchvision.transforms.functional. One, three or four channels: a fourth is alpha and stays as it is;
other counts have no colour, so only what works channel by channel applies to them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flyweight.data.augment.layout import in_chunks, per_image

_LUMA = (0.2989, 0.587, 0.114)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` (N,) >= 0, clamped."""
    return _on_colours(pixels, lambda colours, by: _to_uint8(colours * per_image(by, colours)), factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Stretch by `factor` (N,) >= 0 away from the image's mean gray, clamped."""

    def change(colours: Tensor, by: Tensor) -> Tensor:
        exact = colours.float()
        return _blend(exact, _gray(exact).mean(dim=(1, 2), keepdim=True).unsqueeze(3), by)

    return _on_colours(pixels, change, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Stretch by `factor` (N,) >= 0 away from each pixel's gray, clamped. Nothing without three colours."""
    if pixels.shape[3] not in (3, 4):
        return pixels

    def change(colours: Tensor, by: Tensor) -> Tensor:
        exact = colours.float()
        return _blend(exact, _gray(exact).unsqueeze(3), by)

    return _on_colours(pixels, change, factor)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` (N,) in [-0.5, 0.5] of the circle. Nothing without three colours."""
    return _on_colours(pixels, _turned, turn) if pixels.shape[3] in (3, 4) else pixels


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a 3 x 3 smoothed image: `factor` (N,) 0 smooths, 1 leaves, more sharpens. The border stays."""
    if min(pixels.shape[1:3]) <= 2:
        return pixels

    def change(colours: Tensor, by: Tensor) -> Tensor:
        exact = colours.float()
        rows = exact[:, :-2] + exact[:, 1:-1] + exact[:, 2:]
        total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
        smooth = exact.clone()
        smooth[:, 1:-1, 1:-1] = total.add_(exact[:, 1:-1, 1:-1], alpha=4).div_(13).round_()
        return _blend(exact, smooth, by)

    return _on_colours(pixels, change, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the `bits` (N,) int64 in 0..8 highest bits of each value."""
    mask = (256 - (1 << (8 - bits.to(torch.int64)))).to(pixels.device, torch.uint8).view(-1, 1, 1, 1)
    return _on_colours(pixels, lambda colours, keep: colours & keep, mask)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at or above `threshold` (N,)."""
    # Of integers, v >= t and v >= ceil(t) are the same; 256 says none. int16 compares stay vectorised.
    limit = threshold.ceil().clamp(0, 256).to(pixels.device, torch.int16).view(-1, 1, 1, 1)
    return _on_colours(pixels, lambda colours, by: torch.where(colours >= by, 255 - colours, colours), limit)


def invert(pixels: Tensor) -> Tensor:
    """Return 255 minus each value."""
    return _on_colours(pixels, lambda colours: 255 - colours)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch each channel of each image to 0..255; a channel of one value stays."""

    def change(colours: Tensor) -> Tensor:
        planes = colours.permute(0, 3, 1, 2).contiguous()  # reductions over whole planes are twice as fast
        low = planes.amin(dim=(2, 3), keepdim=True).float()
        high = planes.amax(dim=(2, 3), keepdim=True).float()
        flat = low == high
        stretch = torch.where(flat, 1.0, 255.0 / (high - low))
        stretched = _to_uint8((planes - low.masked_fill_(flat, 0.0)).mul_(stretch))
        return stretched.permute(0, 2, 3, 1).contiguous()

    return _on_colours(pixels, change)


def equalize(pixels: Tensor) -> Tensor:
    """Flatten the histogram of each channel of each image."""

    def change(colours: Tensor) -> Tensor:
        count, channels = colours.shape[0], colours.shape[3]
        start = torch.arange(count * channels, device=colours.device).mul_(256).view(count, 1, 1, channels)
        index = start + colours  # int64: which bin of which channel of which image
        histogram = torch.bincount(index.view(-1), minlength=count * channels * 256).view(-1, 256)
        return _equal_tables(histogram).view(-1)[index]

    return _on_colours(pixels, change)


def _equal_tables(histogram: Tensor) -> Tensor:
    """Turn (T, 256) histograms into (T, 256) uint8 tables. Source: Pillow's ImageOps.equalize."""
    until = histogram.cumsum(1)
    before = until - histogram
    all_but_last = torch.where(until < until[:, -1:], until, 0).amax(1, keepdim=True)  # less the highest value's count
    step = all_but_last.div_(255, rounding_mode="floor")
    table = before.add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    return torch.where(step == 0, torch.arange(256, device=histogram.device), table).to(torch.uint8)


def _on_colours(pixels: Tensor, change: Callable[..., Tensor], *values: Tensor) -> Tensor:
    if pixels.shape[3] != 4:
        return in_chunks(pixels, change, *values)
    return torch.cat((in_chunks(pixels[..., :3].contiguous(), change, *values), pixels[..., 3:]), dim=3)


def _to_uint8(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)  # truncates, as torchvision does


def _blend(exact: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return factor * exact + (1 - factor) * other; both may be overwritten."""
    share = factor.double()
    return _to_uint8(exact.mul_(per_image(share, exact)).add_(other.mul_(per_image(1.0 - share, exact))))


def _gray(exact: Tensor) -> Tensor:
    """Luma of (N, H, W, C) float32 as whole numbers, (N, H, W); of other channel counts than 3, their mean."""
    if exact.shape[3] != 3:
        return exact.mean(3)
    return (exact.view(-1, 3) @ torch.tensor(_LUMA, device=exact.device)).floor_().view(exact.shape[:3])


def _turned(colours: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue in HSV. Source: torchvision's adjust_hue (Pillow's Convert.c)."""
    red, green, blue = (colours.float() / 255).unbind(3)
    high = torch.maximum(torch.maximum(red, green), blue)
    spread = high - torch.minimum(torch.minimum(red, green), blue)
    safe = spread.masked_fill(spread == 0, 1.0)
    from_red = (green - blue) / safe
    from_green = 2.0 + (blue - red) / safe
    from_blue = 4.0 + (red - green) / safe
    sixth = torch.where(high == red, from_red, torch.where(high == green, from_green, from_blue))
    angle = (sixth / 6.0 + turn.to(colours.device, torch.float32).view(-1, 1, 1)).remainder_(1.0).mul_(6.0)
    # Each channel is the value, less its share of the spread: a trapezoid of the distance on the hue circle.
    channels = [high - spread * _shade(angle, offset) for offset in (5.0, 3.0, 1.0)]
    return torch.stack(channels, 3).mul_(255 + 1 - 1e-3).to(torch.uint8)


def _shade(angle: Tensor, offset: float) -> Tensor:
    place = (angle + offset).remainder_(6.0)
    return torch.minimum(place, 4.0 - place).clamp_(0.0, 1.0)
