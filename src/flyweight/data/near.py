"""Images that look nearly the same: a 64-bit difference hash finds candidates, small pictures decide.

Source: the difference hash (dHash) of Neal Krawetz, 2013. Changed: candidates are compared once more as 16 px pictures,
because simple drawings share a hash without being alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16  # px of the small pictures
MOST_BITS = 3  # of 64 that may differ: pairs within it share at least one of four bands
MOST_LEVELS = 4.0  # mean difference of grey levels, of 255
LEAST_SPREAD = 8.0  # standard deviation of grey levels below which a picture is too plain to be recognised
MOST_IN_BUCKET = 64  # images that share a band; larger buckets hold a common shape, not copies


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, C) as a grey picture (16, 16)."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3])
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0))


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, H, W, C) of one shape as grey pictures (N, 16, 16), by the mean of each cell."""
    rows, columns = _cells(images.shape[1]), _cells(images.shape[2])
    out = np.empty((len(images), SIDE, SIDE), np.uint8)
    for start in range(0, len(images), 2048):
        grey = images[start : start + 2048].mean(axis=3, dtype=np.float32)
        out[start : start + 2048] = np.einsum("rh,nhw,cw->nrc", rows, grey, columns, optimize=True)
    return out


def near_pairs(small: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return pairs (a < b) of pictures (N, 16, 16) that look the same."""
    hashes = difference_hashes(small)
    plain = small.reshape(len(small), -1).std(axis=1) < LEAST_SPREAD
    found: set[tuple[int, int]] = set()
    for band in range(4):
        key = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            found.update(_alike(group[~plain[group]], hashes, small))
    return sorted(found)


def difference_hashes(small: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return 64 bits per picture (N, 16, 16): whether each of 8 × 8 cells is brighter than its right neighbour."""
    rows = small.reshape(len(small), 8, 2, SIDE).mean(axis=2)
    columns = np.linspace(0, SIDE - 1, 9).round().astype(int)
    bits = rows[:, :, columns[:-1]] > rows[:, :, columns[1:]]
    return np.packbits(bits.reshape(len(small), 64), axis=1).view(">u8")[:, 0].astype(np.uint64)


def _alike(group: NDArray[np.int64], hashes: NDArray[np.uint64], small: NDArray[np.uint8]) -> list[tuple[int, int]]:
    if len(group) < 2:
        return []
    if len(group) > MOST_IN_BUCKET:  # only those with the very same hash, next to each other
        order = group[np.argsort(hashes[group], kind="stable")]
        first, second = order[:-1], order[1:]
    else:
        a, b = np.triu_indices(len(group), 1)
        first, second = group[a], group[b]
    close = np.bitwise_count(hashes[first] ^ hashes[second]) <= MOST_BITS
    first, second = first[close], second[close]
    levels = np.abs(small[first].astype(np.int16) - small[second]).mean(axis=(1, 2))
    same = levels <= MOST_LEVELS
    return [(int(min(x, y)), int(max(x, y))) for x, y in zip(first[same], second[same], strict=True)]


def _cells(side: int) -> NDArray[np.float32]:
    """Return (16, side) weights that average `side` pixels into 16 cells, sharing pixels that lie across a border."""
    edges = np.linspace(0, side, SIDE + 1)
    left, right = edges[:-1, None], edges[1:, None]
    pixels = np.arange(side)[None, :]
    overlap = np.clip(np.minimum(right, pixels + 1) - np.maximum(left, pixels), 0, None)
    weights: NDArray[np.float32] = (overlap / (right - left)).astype(np.float32)
    return weights
