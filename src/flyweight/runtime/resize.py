"""The one definition of resizing: two passes, horizontal then vertical, of integer weights over uint8 pixels.

Python, JavaScript and C share it and its vectors (tests/vectors/resize.json); docs/resize.md states it for all three.
Filters and weights are those of Pillow's antialiased resize, which computes a pass where it must give the same bytes:
Pillow chooses the order of the passes itself, and differently from version to version, so it is given one at a time.
Where a weight lies so close to a tie that another processor's arithmetic could round it the other way, numpy computes
the pass. `docs/decisions/0008-one-definition-of-resizing.md` has the reasons.

Source: the weights, Pillow's Resample.c (support, filters, 22 fractional bits).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

FRACTION_BITS = 22
ONE = 1 << FRACTION_BITS
HALF = 1 << (FRACTION_BITS - 1)
_EPSILON = float(np.finfo(np.float64).eps)
_BLOCK = 1 << 20  # weights held at once: a strip of a million pixels would have a table as large as itself


def _bilinear(x: Floats) -> Floats:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: Floats) -> Floats:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _box(x: Floats) -> Floats:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


@dataclass(frozen=True)
class Filter:
    """A kernel.

    Attributes:
        support: Half its width, in input pixels at scale 1.
        weight: Its height at a distance.
        pillow: Pillow's name for it.
    """

    support: float
    weight: Callable[[Floats], Floats]
    pillow: Image.Resampling


FILTERS = {
    "bilinear": Filter(1.0, _bilinear, Image.Resampling.BILINEAR),
    "bicubic": Filter(2.0, _bicubic, Image.Resampling.BICUBIC),
    "box": Filter(0.5, _box, Image.Resampling.BOX),
}


class Pass(NamedTuple):
    """One axis of a resize: `start`..`stop` of `size` px become `out` px."""

    size: int
    start: float
    stop: float
    out: int
    interpolation: str


@dataclass(frozen=True)
class Windows:
    """What each output pixel of one pass is made of.

    Attributes:
        first: (n,) int64, the first input pixel of each.
        counts: (n,) int64, how many input pixels follow.
        weights: (n, most) int32 of 22 fractional bits, zero behind `counts`.
        decided: No weight is so near a tie that arithmetic with other last bits would give another integer.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    weights: NDArray[np.int32]
    decided: bool


def windows(one: Pass, begin: int = 0, end: int | None = None) -> Windows:
    """Return the windows of a pass's output pixels `begin` to `end`.

    Every operation is one of IEEE 754 binary64 in the order written here, so that any language gets the same integers.
    """
    size, start, stop, out, interpolation = one
    kernel = FILTERS[interpolation]
    scale = (stop - start) / out
    stretch = max(scale, 1.0)
    support, inverse = kernel.support * stretch, 1.0 / stretch
    place = np.arange(begin, out if end is None else end, dtype=np.float64)
    centre = start + (place + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    counts = np.minimum((centre + support + 0.5).astype(np.int64), size) - first
    taps = np.arange(int(counts.max()))
    distance = ((taps + first[:, None]) - centre[:, None] + 0.5) * inverse
    heights = np.where(taps < counts[:, None], kernel.weight(distance), 0.0)
    total = np.add.accumulate(heights, axis=1)[:, -1]  # in order: numpy's sum has an order of its own
    scaled = heights / total[:, None] * ONE
    weights = np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int32)
    return Windows(first, counts, weights, _decided(interpolation, distance, scaled, stop, stretch))


def resize(
    image: Pixels, size: tuple[int, int], interpolation: str, box: tuple[float, float, float, float] | None = None
) -> Pixels:
    """Return (height, width, C) uint8 from (H, W, C) uint8.

    Args:
        image: Pixels; every channel is resized by itself.
        size: (width, height) of the answer.
        interpolation: A name of `FILTERS`.
        box: (left, top, right, bottom) of what is resized; pixels around it still count where the kernel reaches them.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    across = Pass(width, left, right, size[0], interpolation)
    down = Pass(height, top, bottom, size[1], interpolation)
    rows = reach(down)  # no others are read by the vertical pass, so the horizontal one makes no others
    image = image[rows.first : rows.last]
    if rows.decided and reach(across).decided:
        return _by_pillow(image, across, down, rows.first)
    # The vertical pass is the horizontal one of the picture on its side.
    done = _by_numpy(image, across, 0)
    return np.ascontiguousarray(_by_numpy(done.transpose(1, 0, 2), down, rows.first).transpose(1, 0, 2))


class Reach(NamedTuple):
    """Which input pixels a pass reads, and whether all its weights are decided."""

    first: int
    last: int
    decided: bool


@lru_cache(maxsize=1024)
def reach(one: Pass) -> Reach:
    """Return what a pass reads: the windows' ends, and at least what it is to resize, which Pillow insists on."""
    first, last, decided = math.floor(one.start), math.ceil(one.stop), True
    for block in _blocks(one):
        first, last = min(first, int(block.first[0])), max(last, int(block.first[-1] + block.counts[-1]))
        decided = decided and block.decided
    return Reach(first, last, decided)


def _by_pillow(image: Pixels, across: Pass, down: Pass, offset: int) -> Pixels:
    kernel, height = FILTERS[across.interpolation].pillow, image.shape[0]
    middle, size = (across.out, height), (across.out, down.out)
    columns = (across.start, 0.0, across.stop, float(height))
    rows = (0.0, down.start - offset, float(across.out), down.stop - offset)

    def one(plane: Pixels) -> Pixels:
        return np.array(Image.fromarray(plane).resize(middle, kernel, columns).resize(size, kernel, rows))

    if image.shape[2] == 3:
        return one(np.ascontiguousarray(image))
    # Channel by channel: Pillow would weigh the colours of four channels by the fourth.
    return np.stack([one(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])], axis=2)


def _by_numpy(image: Pixels, one: Pass, offset: int) -> Pixels:
    """Return (H, out, C) from (H, W, C), whose first column is the pass's column `offset`."""
    done = np.empty((image.shape[0], one.out, image.shape[2]), np.uint8)
    at = 0
    for block in _blocks(one):
        firsts = (block.first - offset).tolist()
        for first, count, weights in zip(firsts, block.counts.tolist(), block.weights, strict=True):
            window = image[:, first : first + count].astype(np.float64)
            # Integers below 2**31, which float64 adds exactly and BLAS adds fast.
            sums = np.tensordot(window, weights[:count].astype(np.float64), ([1], [0])).astype(np.int64)
            done[:, at] = np.clip((sums + HALF) >> FRACTION_BITS, 0, 255)
            at += 1
    return done


def _blocks(one: Pass) -> Iterator[Windows]:
    taps = math.ceil(2 * FILTERS[one.interpolation].support * max((one.stop - one.start) / one.out, 1.0)) + 2
    step = max(1, _BLOCK // taps)
    for begin in range(0, one.out, step):
        yield windows(one, begin, min(begin + step, one.out))


def _decided(interpolation: str, distance: Floats, scaled: Floats, stop: float, stretch: float) -> bool:
    """Tell whether every rounding is farther from a tie than the errors of the arithmetic before it can add up to."""
    error = 32 * _EPSILON * (stop + 1.0) / stretch
    fraction = np.abs(scaled) % 1.0
    # Weights that are whole, or zero, come from sums without any error worth a half.
    clear = bool((np.abs(fraction - 0.5) > error / stretch * ONE).all())
    return clear and (interpolation != "box" or bool((np.abs(np.abs(distance) - 0.5) > error).all()))
