"""Decode once: stores of uint8 pixels on the disk, filled as images are asked for, shared by every later run.

A store belongs to one data set (by its content) and one shape. It is a sparse file with a flag per image, so a run that
was killed, or that needed other images, left only work done. Pixels reach the disk before their flag does. One process
fills at a time; others wait and then find the work done. `cache_folder` says how stores are locked and removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from flyweight.data.cache_folder import cache_root, filling, lease_folder, sized_file, write_at
from flyweight.data.dataset import Dataset
from flyweight.data.decoding import Pixels, Progress, UnreadableImages, decode_chunks
from flyweight.files import Lease, write_json
from flyweight.runtime.preprocess import Preprocess, Source, decode, load
from flyweight.runtime.resize import resize

__all__ = ["FixedStore", "RaggedStore", "UnreadableImages", "build_fixed", "build_ragged", "cache_root"]

FORMAT = 3
_COMMIT_BYTES = 8 << 20  # of pixels between two waits for the disk
_RECORD = 4  # int64 of a ragged image: offset, height, width, 1; 32 bytes never straddle a disk sector


@dataclass(frozen=True)
class FixedStore:
    """Images of one shape.

    Attributes:
        memory: (M, H, W, C) uint8: an array, or a map of a file that may hold more images than this store.
        rows: (N,) int64, which of them are the store's, in order; None: all.
    """

    memory: Pixels
    rows: NDArray[np.int64] | None = None
    _lease: Lease | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.memory if self.rows is None else self.rows)

    @property
    def pixels(self) -> Pixels:
        """Return the store's images (N, H, W, C); copied into memory where they are some of a larger array."""
        return self.memory if self.rows is None else self.take(np.arange(len(self)))

    @property
    def nbytes(self) -> int:
        """Bytes of the store's images."""
        return len(self) * math.prod(self.memory.shape[1:])

    @property
    def mapped(self) -> bool:
        """True where the pixels are read from a file as they are asked for."""
        return isinstance(self.memory, np.memmap)

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Return images (n, H, W, C) by their place in the store, copied."""
        found: Pixels = np.take(self.memory, indices if self.rows is None else self.rows[indices], axis=0)
        return np.asarray(found)


@dataclass(frozen=True)
class RaggedStore:
    """Images each of its own shape, as one run of bytes.

    Attributes:
        memory: (B,) uint8.
        places: (N, 3) int64 of offset, height, width.
        channels: Of every image.
    """

    memory: Pixels
    places: NDArray[np.int64]
    channels: int
    _lease: Lease | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def nbytes(self) -> int:
        """Bytes of the store's images."""
        return int((self.places[:, 1] * self.places[:, 2]).sum()) * self.channels

    @property
    def mapped(self) -> bool:
        """True where the pixels are read from a file as they are asked for."""
        return isinstance(self.memory, np.memmap)

    def image(self, index: int) -> Pixels:
        """Return one image (H, W, C), a view."""
        offset, height, width = self.places[index].tolist()
        return self.memory[offset : offset + height * width * self.channels].reshape(height, width, self.channels)

    def in_memory(self) -> RaggedStore:
        """Return the store with its own images, and no others, in memory."""
        lengths = self.places[:, 1] * self.places[:, 2] * self.channels
        places = self.places.copy()
        places[:, 0] = np.cumsum(lengths) - lengths
        memory = np.empty(int(lengths.sum()), np.uint8)
        for (start, *_), (new, *_), length in zip(self.places.tolist(), places.tolist(), lengths.tolist(), strict=True):
            memory[new : new + length] = self.memory[start : start + length]
        return RaggedStore(memory, places, self.channels)


def build_fixed(
    dataset: Dataset,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
) -> FixedStore:
    """Return the images at `indices` as exactly the pixels `runtime.preprocess.load` gives.

    Arrays that have the shape already are taken as they are: nothing is copied, nothing goes to the disk.

    Args:
        dataset: Images in files or in memory.
        indices: (N,) which of them, in any order.
        preprocess: The shape; its mean and std play no part, but for the fill of `resize="pad"`.
        root: Folder of the cache; by default `cache_root()`.
        progress: Called with (images done, images missing at the start).

    Raises:
        UnreadableImages: Images that cannot be read, all by name; the others are kept for the next time.
        OutputError: The cache cannot be written.
    """
    indices = np.asarray(indices, np.int64)
    shape = (preprocess.image_size, preprocess.image_size, preprocess.channels)
    whole = getattr(dataset.images, "array", None)
    if whole is not None and whole.shape[1:] == shape and whole.dtype == np.uint8:
        return FixedStore(np.ascontiguousarray(whole), indices)
    folder, lease = _open(dataset, {"kind": "fixed", **_pixel_part(preprocess)}, root)
    filled = _read(folder / "flags", np.uint8)
    if not len(filled) or not filled[indices].all():
        with filling(folder):
            _fill_fixed(folder, dataset, indices, preprocess, progress)
    memory = np.memmap(folder / "pixels", np.uint8, mode="r", shape=(len(dataset), *shape))
    return FixedStore(memory, indices, lease)


def build_ragged(
    dataset: Dataset,
    indices: NDArray[np.int64],
    channels: int,
    short_side: int,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
) -> RaggedStore:
    """Return the images at `indices` with their own aspect ratios, the short side at most `short_side` px.

    Smaller images stay as they are. Arguments and errors as `build_fixed`.
    """
    indices = np.asarray(indices, np.int64)
    folder, lease = _open(dataset, {"kind": "ragged", "channels": channels, "short_side": short_side}, root)
    records = _records(folder)
    if not len(records) or not records[indices, 3].all():
        with filling(folder):
            _fill_ragged(folder, dataset, indices, channels, short_side, progress)
        records = _records(folder)
    memory = np.memmap(folder / "pixels", np.uint8, mode="r")
    return RaggedStore(memory, np.ascontiguousarray(records[indices, :3]), channels, lease)


def _open(dataset: Dataset, shape: dict[str, Any], root: Path | None) -> tuple[Path, Lease]:
    """Return the folder of a store, made if need be, and the lease that keeps it."""
    content = hashlib.blake2b(np.ascontiguousarray(dataset.hashes()).tobytes(), digest_size=16).hexdigest()
    made_by = {"format": FORMAT, "pillow": PIL.__version__, **shape}  # another decoder may give other pixels
    key = hashlib.blake2b(json.dumps([made_by, content], sort_keys=True).encode(), digest_size=12).hexdigest()
    folder = (root or cache_root()) / "pixels" / key
    lease = lease_folder(folder)
    if not (folder / "store.json").exists():
        write_json(folder / "store.json", {"data": dataset.name, "images": len(dataset), **made_by})
    return folder, lease


def _pixel_part(preprocess: Preprocess) -> dict[str, Any]:
    """What of the preprocessing decides the pixels."""
    shape = {key: value for key, value in preprocess.to_json().items() if key not in {"mean", "std"}}
    return shape | ({"fill": list(preprocess.mean)} if preprocess.resize == "pad" else {})


def _fill_fixed(
    folder: Path, dataset: Dataset, indices: NDArray[np.int64], preprocess: Preprocess, progress: Progress | None
) -> None:
    count, stride = len(dataset), preprocess.image_size**2 * preprocess.channels
    with sized_file(folder / "flags", count) as flags, sized_file(folder / "pixels", count * stride) as pixels:
        missing = _missing(_read(folder / "flags", np.uint8), indices)
        chunk = min(max(_COMMIT_BYTES // stride, 32), 4096)

        def one(source: Source, name: str) -> Pixels:
            return load(source, preprocess, name=name)

        for done, images in decode_chunks(dataset, missing, one, chunk=chunk, progress=progress):
            for index, image in zip(done.tolist(), images, strict=True):
                write_at(pixels, np.ascontiguousarray(image).data.cast("B"), index * stride)
            os.fdatasync(pixels)
            for index in done.tolist():
                write_at(flags, b"\1", index)


def _fill_ragged(
    folder: Path,
    dataset: Dataset,
    indices: NDArray[np.int64],
    channels: int,
    short_side: int,
    progress: Progress | None,
) -> None:
    size = len(dataset) * _RECORD * 8
    with sized_file(folder / "places", size) as places, sized_file(folder / "pixels") as pixels:
        records = _records(folder)
        missing = _missing(records[:, 3], indices)
        end = int((records[:, 0] + records[:, 1] * records[:, 2] * channels).max(initial=0))
        chunk = min(max(_COMMIT_BYTES // (short_side * short_side * channels), 32), 4096)

        def one(source: Source, name: str) -> Pixels:
            return shrink(decode(source, channels, name=name), short_side)

        for done, images in decode_chunks(dataset, missing, one, chunk=chunk, progress=progress):
            rows = []
            for image in images:
                write_at(pixels, np.ascontiguousarray(image).data.cast("B"), end)
                rows.append(np.array([end, *image.shape[:2], 1], np.int64).tobytes())
                end += image.size
            os.fdatasync(pixels)
            for index, row in zip(done.tolist(), rows, strict=True):
                write_at(places, row, index * _RECORD * 8)


def shrink(image: Pixels, short_side: int) -> Pixels:
    """Return (H, W, C) with the short side brought down to `short_side` px, antialiased; smaller ones as they are."""
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    ratio = short_side / min(height, width)
    size = (max(short_side, round(width * ratio)), max(short_side, round(height * ratio)))
    return resize(image, size, "bilinear")


def _missing(filled: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    wanted = np.unique(indices)
    missing: NDArray[np.int64] = wanted[filled[wanted] == 0]
    return missing


def _records(folder: Path) -> NDArray[np.int64]:
    records: NDArray[np.int64] = _read(folder / "places", np.int64).reshape(-1, _RECORD)
    return records


def _read(path: Path, dtype: Any) -> NDArray[Any]:
    return np.fromfile(path, dtype) if path.exists() else np.zeros(0, dtype)
