"""Changes of pixel values, each with its own strength for every image: (N, H, W, C) uint8 in and out.

Checked against torchvision.transforms.functional. One, three or four channels: a fourth is alpha and stays as it is;
other counts have no colour, so only what works channel by channel applies to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flyweight.data.augment.layout import per_image

_LUMA = (0.2989, 0.587, 0.114)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` (N,) >= 0, clamped."""
    return _on_colours(pixels, lambda colours: _to_uint8(colours * per_image(factor, colours)))


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Stretch by `factor` (N,) >= 0 away from the image's mean gray, clamped."""

    def change(colours: Tensor) -> Tensor:
        mean = _gray(colours).mean(dim=(1, 2, 3), keepdim=True)
        return _blend(colours, mean, factor)

    return _on_colours(pixels, change)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Stretch by `factor` (N,) >= 0 away from each pixel's gray, clamped. Nothing without three colours."""
    if pixels.shape[3] not in (3, 4):
        return pixels
    return _on_colours(pixels, lambda colours: _blend(colours, _gray(colours), factor))


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` (N,) in [-0.5, 0.5] of the circle. Nothing without three colours."""
    if pixels.shape[3] not in (3, 4):
        return pixels
    return _on_colours(pixels, lambda colours: _turned(colours, turn))


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a 3 x 3 smoothed image: `factor` (N,) 0 smooths, 1 leaves, more sharpens. The border stays."""
    if min(pixels.shape[1:3]) <= 2:
        return pixels

    def change(colours: Tensor) -> Tensor:
        exact = colours.float()
        rows = exact[:, :-2] + exact[:, 1:-1] + exact[:, 2:]
        total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
        smooth = exact.clone()
        smooth[:, 1:-1, 1:-1] = total.add_(exact[:, 1:-1, 1:-1], alpha=4).div_(13).round_()
        return _blend(exact, smooth, factor)

    return _on_colours(pixels, change)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the `bits` (N,) int64 in 0..8 highest bits of each value."""
    mask = (256 - (1 << (8 - bits.to(torch.int64)))).to(pixels.device, torch.uint8).view(-1, 1, 1, 1)
    return _on_colours(pixels, lambda colours: colours & mask)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at or above `threshold` (N,)."""
    # Of integers, v >= t and v >= ceil(t) are the same; 256 says none. int16 compares stay vectorised.
    limit = threshold.ceil().clamp(0, 256).to(pixels.device, torch.int16).view(-1, 1, 1, 1)
    return _on_colours(pixels, lambda colours: torch.where(colours >= limit, 255 - colours, colours))


def invert(pixels: Tensor) -> Tensor:
    """Return 255 minus each value."""
    return _on_colours(pixels, lambda colours: 255 - colours)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch each channel of each image to 0..255; a channel of one value stays."""

    def change(colours: Tensor) -> Tensor:
        low = colours.amin(dim=(1, 2), keepdim=True).float()
        high = colours.amax(dim=(1, 2), keepdim=True).float()
        flat = low == high
        stretch = torch.where(flat, 1.0, 255.0 / (high - low))
        return _to_uint8((colours - low.masked_fill_(flat, 0.0)).mul_(stretch))

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
    """Turn (T, 256) histograms into (T, 256) uint8 look-up tables. Source: Pillow's ImageOps.equalize."""
    last = 255 - (histogram.flip(1) > 0).to(torch.int8).argmax(1, keepdim=True)
    step = (histogram.sum(1, keepdim=True) - histogram.gather(1, last)).div_(255, rounding_mode="floor")
    before = histogram.cumsum(1) - histogram
    table = (before + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    identity = torch.arange(256, device=histogram.device)
    return torch.where(step == 0, identity, table).to(torch.uint8)


def _on_colours(pixels: Tensor, change: object) -> Tensor:
    assert callable(change)
    if pixels.shape[3] != 4:
        return change(pixels)  # type: ignore[no-any-return]
    return torch.cat((change(pixels[..., :3]), pixels[..., 3:]), dim=3)


def _to_uint8(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)  # truncates, as torchvision does


def _blend(colours: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    share = factor.double()
    mixed = colours * per_image(share, colours)
    return _to_uint8(mixed.addcmul_(other.float(), per_image(1.0 - share, colours)))


def _gray(colours: Tensor) -> Tensor:
    """Luma as whole numbers in float32, (N, H, W, 1); other channel counts as they are."""
    if colours.shape[3] != 3:
        return colours.float()
    red, green, blue = colours.unbind(3)
    return (red * _LUMA[0]).add_(green * _LUMA[1]).add_(blue * _LUMA[2]).floor_().unsqueeze(3)


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
