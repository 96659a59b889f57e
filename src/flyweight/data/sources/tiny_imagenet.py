"""Tiny ImageNet in its original layout. Its labelled validation images are the official test part here: the labels of
its own test images were never published, and every published number is on the validation images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flyweight.data.archive import is_archive, unpack
from flyweight.data.dataset import Dataset, ImageFiles
from flyweight.data.sources.folder import images_below
from flyweight.errors import DataError

NAME = "tiny-imagenet-200"


def find(path: Path) -> Path | None:
    """Return the folder with train/ and val/val_annotations.txt at or right below a path."""
    places = (path, path / NAME)
    return next((place for place in places if (place / "val" / "val_annotations.txt").is_file()), None)


def read_below(path: Path) -> Dataset:
    """Return Tiny ImageNet at or below a folder, or from its archives there.

    Raises:
        DataError: It is not there.
    """
    found = find(path)
    if found is None and path.is_dir():
        archives = sorted(entry for entry in path.glob("tiny-imagenet*") if entry.is_file() and is_archive(entry))
        found = find(unpack(archives, None)) if archives else None
    if found is None:
        raise DataError(
            f"no {NAME} with val/val_annotations.txt at or below {str(path)!r}", do="unpack the original archive there"
        )
    return read(found)


def read(path: Path) -> Dataset:
    """Return the data set; classes are WordNet ids with their first name, as in `n01443537 goldfish`.

    Raises:
        DataError: An annotated image or the training images are missing.
    """
    folders = sorted((path / "train").glob("*/images"))
    if not folders:
        raise DataError(
            f"{str(path)!r} has val/ but no train/CLASS/images",
            do="unpack the archive of the training images there too",
        )
    ids = tuple(folder.parent.name for folder in folders)
    place = {name: label for label, name in enumerate(ids)}
    train = [(file, place[folder.parent.name]) for folder in folders for file in sorted(images_below(folder), key=str)]
    held = _annotated(path, place)
    return Dataset(
        name=NAME,
        classes=_names(path, ids),
        images=ImageFiles(path, tuple(file for file, _ in [*train, *held])),
        labels=np.array([label for _, label in [*train, *held]], np.int64),
        parts=np.array(["train"] * len(train) + ["test"] * len(held)),
        root=path,
    )


def _annotated(path: Path, place: dict[str, int]) -> list[tuple[Path, int]]:
    rows = [line.split("\t") for line in (path / "val" / "val_annotations.txt").read_text("utf-8").splitlines() if line]
    strange = next((row for row in rows if len(row) < 2 or row[1] not in place), None)
    if strange is not None:
        raise DataError(
            f"{path}/val/val_annotations.txt: {' '.join(strange)!r} names no class of train/", do="unpack it again"
        )
    folder = path / "val" / "images"
    there = {file.name for file in images_below(folder)} if folder.is_dir() else set()
    missing = [row[0] for row in rows if row[0] not in there]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} annotated images are missing, such as {missing[0]}", do="unpack it again"
        )
    return [(folder / row[0], place[row[1]]) for row in rows]


def _names(path: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
    words = path / "words.txt"
    if not words.is_file():
        return ids
    rows = (line.partition("\t") for line in words.read_text("utf-8").splitlines())
    known = {name: text.split(",")[0] for name, _, text in rows}
    return tuple(f"{name} {known[name]}" if name in known else name for name in ids)
