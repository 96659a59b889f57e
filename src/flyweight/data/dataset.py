"""`Dataset`: labelled images as they lie on the disk or in an array; nothing is decoded yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.data.index import file_hashes
from flyweight.errors import DataError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFiles:
    """Images in files.

    Attributes:
        root: Folder that the names shown to people are relative to.
        paths: One per image.
    """

    root: Path
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def key(self, index: int) -> str:
        """Return the name of an image, for people."""
        path = self.paths[index]
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def read(self, index: int) -> Path:
        """Return where an image is."""
        return self.paths[index]

    def hashes(self) -> NDArray[np.bytes_]:
        """Return (N,) content hashes, from the index where the file has not changed."""
        return file_hashes(self.paths)

    def take(self, indices: NDArray[np.int64]) -> ImageFiles:
        """Return the images at `indices`."""
        return ImageFiles(self.root, tuple(self.paths[int(index)] for index in indices))


@dataclass(frozen=True)
class ImageArray:
    """Images of one shape in memory.

    Attributes:
        array: (N, H, W, C) uint8.
        name: What images are called: `name[17]`.
    """

    array: NDArray[np.uint8]
    name: str

    def __len__(self) -> int:
        return len(self.array)

    def key(self, index: int) -> str:
        """Return the name of an image, for people."""
        return f"{self.name}[{index}]"

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, C) of an image."""
        image: NDArray[np.uint8] = self.array[index]
        return image

    def hashes(self) -> NDArray[np.bytes_]:
        """Return (N,) hashes of the pixels."""
        return np.array([_hash(image) for image in np.ascontiguousarray(self.array)], dtype="S32")

    def take(self, indices: NDArray[np.int64]) -> ImageArray:
        """Return the images at `indices`, copied."""
        return ImageArray(self.array[indices], self.name)


@dataclass(frozen=True)
class Quarantined:
    """An image left out, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Attributes:
        classes: Names in the order of the labels.
        labels: (N,) int64.
        parts: (N,) of "train", "val", "test", or "" where the source leaves it open; None: it says nothing at all.
        groups: Name per image of what must stay on one side of a split (a person, a video); None: every image alone.
        quarantined: Images left out, by name.
        root: Folder or file it was read from.
        group_by: The column or pattern that named the groups, for the rule of a split.
    """

    name: str
    classes: tuple[str, ...]
    images: ImageFiles | ImageArray
    labels: NDArray[np.int64]
    parts: NDArray[np.str_] | None = None
    groups: tuple[str, ...] | None = None
    quarantined: tuple[Quarantined, ...] = ()
    root: Path | None = None
    note: str = field(default="", compare=False)
    group_by: str | None = None

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise DataError(
                f"{self.name}: there are no images", do="point to a folder with one folder of images per class"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise DataError(
                f"{self.name}: labels from {self.labels.min()} to {self.labels.max()} with {len(self.classes)} classes",
                do="number the classes from 0 and name each",
            )
        used = np.bincount(self.labels, minlength=len(self.classes))
        if len(self.classes) < 2 or (used > 0).sum() < 2:
            found = ", ".join(repr(name) for name in self.classes[:3])
            raise DataError(
                f"{self.name}: a classifier needs at least two classes with images, found {found}",
                do="add a folder for each further class",
            )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _hashes(self) -> NDArray[np.bytes_]:
        return self.images.hashes()

    def hashes(self) -> NDArray[np.bytes_]:
        """Return (N,) "S32" hex hashes: of the bytes of files, of the pixels of arrays. Worked out once."""
        return self._hashes

    def fingerprint(self) -> str:
        """Return a hash of classes, contents and labels, the same in whatever order the images come."""
        names = np.array([name.encode() for name in self.classes])
        rows = np.sort(np.char.add(np.char.add(self.hashes(), b"="), names[self.labels]))
        return hashlib.blake2b(b"\n".join(rows.tolist()), digest_size=16).hexdigest()

    def take(self, indices: NDArray[np.int64]) -> Dataset:
        """Return the images at `indices`, in that order."""
        indices = np.asarray(indices, np.int64)
        return replace(
            self,
            images=self.images.take(indices),
            labels=self.labels[indices],
            parts=None if self.parts is None else self.parts[indices],
            groups=None if self.groups is None else tuple(self.groups[int(index)] for index in indices),
        )

    def without(self, reasons: Mapping[str, str]) -> Dataset:
        """Return the data set less the images named in `reasons` (name: why), which are listed in `quarantined`."""
        keys = [self.images.key(index) for index in range(len(self))]
        kept = np.array([index for index, key in enumerate(keys) if key not in reasons], np.int64)
        gone = tuple(Quarantined(key, reasons[key]) for key in keys if key in reasons)
        return replace(self.take(kept), quarantined=self.quarantined + gone)

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class."""
        found = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, found, strict=True)}


def label_array(names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return labels (N,) of class names, in the order of `classes`."""
    place: dict[str, int] = {name: index for index, name in enumerate(classes)}
    return np.array([place[name] for name in names], dtype=np.int64)


def _hash(image: NDArray[Any]) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
