"""ImageNet in class folders below train/ and val/. Its labelled validation images are the official test part here: the
labels of its own test images were never published, and every published number is on the validation images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from flyweight.data.dataset import Dataset
from flyweight.data.sources import folder
from flyweight.errors import DataError

NAMES = ("imagenet", "imagenet-1k", "ILSVRC2012")


def read_below(path: Path) -> Dataset:
    """Return ImageNet at a folder, or in `imagenet`, `imagenet-1k` or `ILSVRC2012` right below it.

    Raises:
        DataError: There are no train/CLASS and val/CLASS folders of images.
    """
    places = (path, *(path / name for name in NAMES))
    found = next((place for place in places if (place / "train").is_dir() and (place / "val").is_dir()), None)
    if found is None:
        raise DataError(
            f"no ImageNet with train/CLASS/ and val/CLASS/ at {str(path)!r}, nor in {', '.join(NAMES)} below it",
            do="sort its images into one folder for each class, below train and below val",
        )
    return read(found)


def read(path: Path) -> Dataset:
    """Return the data set of train/CLASS and val/CLASS; the latter are the test part.

    Raises:
        DataError: A part has no images in class folders, or the two have other classes.
    """
    dataset = folder.read(path) if folder.find(path) else None
    if dataset is None or dataset.parts is None:
        raise DataError(f"{str(path)!r} has no images in train/CLASS/ and val/CLASS/", do="unpack the archives there")
    parts = np.where(dataset.parts == "val", "test", dataset.parts)
    seen = {part: set(dataset.labels[parts == part].tolist()) for part in ("train", "test")}
    if not seen["train"] or seen["train"] != seen["test"]:
        raise DataError(
            f"{str(path)!r}: {len(seen['train'])} classes in train, {len(seen['test'])} in val, "
            f"{len(seen['train'] & seen['test'])} in both",
            do="put each class's images into a folder of the same name below train and below val",
        )
    return dataclasses.replace(dataset, name="imagenet", parts=parts)
