"""IDX files: MNIST, Fashion-MNIST and their family, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset, ImageArray
from flyweight.errors import DataError

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TRAIN, TEST = "train", "t10k"
MAGIC = {b"\x00\x00\x08\x03": 3, b"\x00\x00\x08\x01": 1}
MOST_BYTES = 4 << 30


def find(path: Path) -> Path | None:
    """Return the folder that holds the IDX files: the path, or `raw` or `MNIST/raw` below it."""
    if path.is_file():
        return path.parent if "-ubyte" in path.name else None
    folders = (path, path / "raw", path / "MNIST" / "raw", path / "FashionMNIST" / "raw")
    return next((folder for folder in folders if _file(folder, f"{TRAIN}-images")), None)


def read(path: Path, name: str | None = None, classes: tuple[str, ...] | None = None) -> Dataset:
    """Return the data set of the four files; the t10k files are its official test part.

    Raises:
        DataError: A file is missing, truncated or not IDX.
    """
    parts = [(part, *_part(path, part)) for part in (TRAIN, TEST) if _file(path, f"{part}-images")]
    labels = np.concatenate([labels for _, _, labels in parts]).astype(np.int64)
    fashion = any("fashion" in step.lower() for step in path.absolute().parts[-2:])  # the folder, or raw/ in it
    highest = int(labels.max(initial=0))
    names = classes or (FASHION if fashion and highest == 9 else tuple(str(label) for label in range(highest + 1)))
    if len(names) <= highest:
        raise DataError(f"{path}: label {highest} with {len(names)} class names", do="use the original label files")
    kinds = np.concatenate([np.full(len(labels), "test" if part == TEST else "train") for part, _, labels in parts])
    name = name or ("fashion-mnist" if fashion else "mnist")
    images = np.concatenate([images for _, images, _ in parts])[..., None]
    return Dataset(name, names, ImageArray(images, name), labels, kinds, root=path)


def read_mnist(path: Path) -> Dataset:
    """Return MNIST at or below a folder."""
    return read(_below(path, "mnist", ("", "MNIST/raw", "MNIST", "mnist", "mnist/raw", "raw")), "mnist")


def read_fashion_mnist(path: Path) -> Dataset:
    """Return Fashion-MNIST at or below a folder."""
    places = (
        "FashionMNIST/raw",
        "FashionMNIST",
        "fashion-mnist",
        "fashion-mnist/raw",
        "fashion_mnist",
        "fashion",
        "",
        "raw",
    )
    return read(_below(path, "fashion-mnist", places), "fashion-mnist", FASHION)


def _below(path: Path, name: str, places: tuple[str, ...]) -> Path:
    path = path.parent if path.is_file() else path
    for place in places:
        if _file(path / place, f"{TRAIN}-images"):
            return path / place
    raise DataError(
        f"no IDX files of {name} at or below {str(path)!r}; looked in {', '.join(place or '.' for place in places)}",
        do="it needs train-images-idx3-ubyte and its three companions, .gz or not",
    )


def _file(folder: Path, stem: str) -> Path | None:
    kind = "idx3" if stem.endswith("images") else "idx1"
    names = [f"{stem}{sep}{kind}-ubyte{end}" for sep in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = _read(_needed(folder, f"{part}-images"))
    labels = _read(_needed(folder, f"{part}-labels"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {part} has images of shape {images.shape} and labels of shape {labels.shape}",
            do="use images and labels of the same data set",
        )
    return images, labels


def _needed(folder: Path, stem: str) -> Path:
    found = _file(folder, stem)
    if found is None:
        raise DataError(f"{str(folder)!r} has no {stem}-idx*-ubyte", do="put all four IDX files into one folder")
    return found


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                content = file.read(MOST_BYTES)
        else:
            content = path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", do="fetch the file again") from error
    axes = MAGIC.get(content[:4])
    if axes is None:
        raise DataError(f"{path} is not an IDX file of bytes: it begins with {content[:4].hex()}", do="fetch it again")
    if len(content) < 4 + 4 * axes:
        raise DataError(f"{path} is truncated: it ends inside its header", do="fetch the file again")
    shape = tuple(int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if values.size != math.prod(shape):
        raise DataError(
            f"{path} is truncated: its header says {' x '.join(map(str, shape))} = {math.prod(shape):,} bytes, "
            f"it holds {values.size:,}",
            do="fetch the file again",
        )
    return values.reshape(shape)
