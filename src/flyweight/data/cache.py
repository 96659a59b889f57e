"""Decode once: stores of uint8 pixels on the disk, filled as images are asked for, shared by every later run.

A store belongs to one data set (by its content) and one shape. It is a sparse file with a flag per image, so a run that
was killed, or that needed other images, left only work done. Pixels reach the disk before their flag does. One process
fills at a time; the others wait and then find the work done. The least recently used stores go when the folder
outgrows FLYWEIGHT_CACHE_GB (default 20), never one that is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flyweight.data.dataset import Dataset
from flyweight.errors import DataError, FlyweightError, OutputError
from flyweight.files import output_error, write_json
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.preprocess import Preprocess, decode, load

FORMAT = 1
CHUNK = 256  # images decoded between two writes
DEFAULT_LIMIT_GB = 20.0
Progress = Callable[[int, int], None]
Store = TypeVar("Store")


@dataclass(frozen=True)
class FixedStore:
    """Images of one shape.

    Attributes:
        memory: (M, H, W, C) uint8: an array, or a map of a file that may hold more images than this store.
        rows: (N,) which of them are the store's, in order; None: all.
    """

    memory: NDArray[np.uint8]
    rows: NDArray[np.int64] | None = None
    _lease: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.memory if self.rows is None else self.rows)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Return the store's images (N, H, W, C); copied into memory where they are some of a larger file."""
        return self.memory if self.rows is None else self.take(np.arange(len(self)))

    @property
    def nbytes(self) -> int:
        """Bytes of the store's images."""
        return len(self) * math.prod(self.memory.shape[1:])

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images (n, H, W, C) by their place in the store, copied."""
        found: NDArray[np.uint8] = np.take(self.memory, indices if self.rows is None else self.rows[indices], axis=0)
        return found


@dataclass(frozen=True)
class RaggedStore:
    """Images each of its own shape, as one run of bytes.

    Attributes:
        memory: (B,) uint8.
        places: (N, 3) int64 of offset, height, width.
        channels: Of every image.
    """

    memory: NDArray[np.uint8]
    places: NDArray[np.int64]
    channels: int
    _lease: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def nbytes(self) -> int:
        """Bytes of the store's images."""
        return int((self.places[:, 1] * self.places[:, 2]).sum()) * self.channels

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image (H, W, C), a view."""
        offset, height, width = (int(value) for value in self.places[index])
        return self.memory[offset : offset + height * width * self.channels].reshape(height, width, self.channels)


def build_fixed(
    dataset: Dataset,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
) -> FixedStore:
    """Return the images at `indices` as exactly the pixels `runtime.preprocess.load` gives.

    Arrays that have the shape already are not copied to the disk.

    Raises:
        DataError: Images that cannot be read, all by name.
        OutputError: The cache cannot be written.
    """
    size, channels = preprocess.image_size, preprocess.channels
    whole = getattr(dataset.images, "array", None)
    if whole is not None and whole.shape[1:] == (size, size, channels):
        return FixedStore(np.ascontiguousarray(whole[indices]))
    shape = {key: value for key, value in preprocess.to_json().items() if key not in {"mean", "std"}}
    if preprocess.resize == "pad":
        shape["fill"] = list(preprocess.mean)
    folder = _open(dataset, {"kind": "fixed", **shape}, root)
    count = len(dataset.labels)
    with _filling(folder) as lease:
        pixels = _map(folder / "pixels", (count, size, size, channels))
        flags = _map(folder / "flags", (count,))
        missing = indices[flags[indices] == 0]
        for chunk, images in _decoded(dataset, missing, lambda source: load(source, preprocess), progress):
            for index, image in zip(chunk, images, strict=True):
                pixels[index] = image
            _commit(folder, pixels, flags, chunk)
    return FixedStore(pixels, np.asarray(indices, np.int64), lease)


def build_ragged(
    dataset: Dataset,
    indices: NDArray[np.int64],
    channels: int,
    short_side: int,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
) -> RaggedStore:
    """Return the images at `indices` with their own shapes, the short side at most `short_side` px.

    Raises:
        DataError: Images that cannot be read, all by name.
        OutputError: The cache cannot be written.
    """
    folder = _open(dataset, {"kind": "ragged", "channels": channels, "short_side": short_side}, root)
    with _filling(folder) as lease:
        places = _map(folder / "places", (len(dataset.labels), 3), np.int64)
        missing = indices[places[indices, 1] == 0]
        end = int((places[:, 0] + places[:, 1] * places[:, 2] * channels).max(initial=0))
        with _appending(folder / "pixels", end) as file:
            for chunk, images in _decoded(dataset, missing, lambda s: _shrink(decode(s, channels), short_side), progress):
                rows = []
                for image in images:
                    rows.append((end, *image.shape[:2]))
                    end += image.size
                    file.write(np.ascontiguousarray(image).tobytes())
                file.flush()
                os.fdatasync(file.fileno())
                places[chunk] = rows
    memory = np.memmap(folder / "pixels", np.uint8, mode="r") if end else np.zeros(0, np.uint8)
    return RaggedStore(memory, np.array(places[indices]), channels, lease)


def cache_root() -> Path:
    """Return FLYWEIGHT_CACHE, or ~/.cache/flyweight."""
    return Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")


def _shrink(image: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    ratio = short_side / min(height, width)
    size = (max(short_side, round(width * ratio)), max(short_side, round(height * ratio)))
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)).reshape(size[1], size[0], -1)


def _decoded(
    dataset: Dataset, indices: NDArray[np.int64], one: Callable[[Any], NDArray[np.uint8]], progress: Progress | None
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.uint8]]]]:
    """Yield chunks of indices and their images; raise once at the end, with the names of all that cannot be read."""
    broken: list[str] = []

    def attempt(index: int) -> NDArray[np.uint8] | None:
        try:
            return one(dataset.images.read(int(index)))
        except FlyweightError as error:
            broken.append(f"{dataset.images.key(int(index))} ({error.what})")
            return None

    with ThreadPoolExecutor(usable_cores()) as pool:  # Pillow decodes without the interpreter's lock
        for start in range(0, len(indices), CHUNK):
            chunk = indices[start : start + CHUNK]
            found = list(pool.map(attempt, chunk))
            good = [place for place, image in enumerate(found) if image is not None]
            yield chunk[good], [image for image in found if image is not None]
            if progress:
                progress(start + len(chunk), len(indices))
    if broken:
        raise _unreadable(broken)


def _unreadable(broken: Sequence[str]) -> DataError:
    shown = "; ".join(sorted(broken)[:5]) + (f"; and {len(broken) - 5} more" if len(broken) > 5 else "")
    return DataError(
        f"{len(broken)} image{'s' * (len(broken) > 1)} cannot be read: {shown}",
        do="mend or remove them, or list them with: flyweight data check PATH --quarantine bad.txt",
    )


def _open(dataset: Dataset, shape: dict[str, Any], root: Path | None) -> Path:
    """Return the folder of a store, made if need be, and make room for it."""
    content = hashlib.blake2b(np.ascontiguousarray(dataset.hashes()).tobytes(), digest_size=16)
    key = hashlib.blake2b(json.dumps([FORMAT, shape, content.hexdigest()], sort_keys=True).encode(), digest_size=12)
    folder = (root or cache_root()) / "pixels" / key.hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "store.json").exists():
            write_json(folder / "store.json", {"data": dataset.name, "images": len(dataset.labels), **shape})
        os.utime(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    _make_room(folder)
    return folder


def _make_room(keep: Path) -> None:
    """Remove the least recently used stores that nobody has open, until the folder is within its limit."""
    limit = float(os.environ.get("FLYWEIGHT_CACHE_GB") or DEFAULT_LIMIT_GB) * 1e9
    stores = sorted((path for path in keep.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = {path: sum(file.stat().st_blocks * 512 for file in path.iterdir() if file.is_file()) for path in stores}
    for path in stores:
        if sum(sizes.values()) <= limit:
            return
        if path != keep and _unused(path):
            shutil.rmtree(path, ignore_errors=True)
            sizes.pop(path)


def _unused(folder: Path) -> bool:
    with contextlib.suppress(OSError), (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextlib.contextmanager
def _filling(folder: Path) -> Iterator[IO[bytes]]:
    """Hold the store alone while filling it; afterwards the file given stays locked as in use until it is let go."""
    try:
        lease = (folder / "lock").open("ab")
        fcntl.flock(lease, fcntl.LOCK_EX)
        yield lease
        fcntl.flock(lease, fcntl.LOCK_SH)
    except OSError as error:
        raise output_error(folder, error) from error


def _map(path: Path, shape: tuple[int, ...], dtype: Any = np.uint8) -> np.memmap[Any, Any]:
    """Map a file of zeros of that shape, made sparse where it is new."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not path.exists() or path.stat().st_size != size:
        with path.open("ab") as file:
            file.truncate(size)
    return np.memmap(path, dtype, mode="r+", shape=shape)


def _commit(folder: Path, pixels: np.memmap[Any, Any], flags: np.memmap[Any, Any], chunk: NDArray[np.int64]) -> None:
    """Bring the pixels to the disk, then say that they are there."""
    _check_disk(folder, pixels)
    pixels.flush()
    flags[chunk] = 1


def _check_disk(folder: Path, pixels: np.memmap[Any, Any]) -> None:
    """Refuse before the disk is full: writing to a map beyond it would end the process without a word."""
    needed = CHUNK * math.prod(pixels.shape[1:])
    if shutil.disk_usage(folder).free < 2 * needed:
        raise OutputError(
            f"cannot write the pixel cache {str(folder)!r}: the disk is full",
            do="free some space or set FLYWEIGHT_CACHE to another disk, and run the same command again",
        )


@contextlib.contextmanager
def _appending(path: Path, end: int) -> Iterator[IO[bytes]]:
    """Open a file to append to after its first `end` bytes; what an interrupted run left behind them is cut off."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(end)
        file.seek(end)
        yield file
