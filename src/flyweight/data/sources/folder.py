"""A folder of class folders, flat or below train / val / test; the class is the path below the part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flyweight.data.dataset import Dataset, ImageFiles, label_array
from flyweight.errors import DataError
from flyweight.runtime.preprocess import SUFFIXES

PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
PARTS |= {"test": "test", "testing": "test", "eval": "test"}


def find(path: Path) -> Path | None:
    """Return the folder itself where there are images in folders below it."""
    if not path.is_dir():
        return None
    found = next((entry for entry in _images(path) if entry.parent != path), None)
    if found is None and any(True for _ in _images(path)):
        raise DataError(
            f"{str(path)!r} holds images but no class folders",
            do="put the images of each class into a folder of its own, or list them in a CSV with path and label",
        )
    return path if found else None


def read(path: Path) -> Dataset:
    """Return the images below `path`; classes in natural order (class2 before class10).

    Raises:
        DataError: Parts with different classes, or images outside class folders.
    """
    path = _only_child(path)
    files = sorted(_images(path), key=str)
    has_parts = any(child.is_dir() and child.name.lower() in PARTS for child in path.iterdir())
    parts, names = zip(*(_place(file.relative_to(path).parts, has_parts) for file in files), strict=True)
    stray = [file for file, name in zip(files, names, strict=True) if not name]
    if stray:
        raise DataError(
            f"{len(stray)} images lie outside any class folder, such as {str(stray[0])!r}",
            do="move them into the folder of their class",
        )
    classes = tuple(sorted(set(names), key=natural))
    return Dataset(
        name=path.name or "folder",
        classes=classes,
        images=ImageFiles(path, tuple(files)),
        labels=label_array(names, classes),
        parts=np.array(parts) if has_parts else None,
        root=path,
    )


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that counts: class2 before class10."""
    return [(0, int(run), "") if run.isdigit() else (1, 0, run.lower()) for run in re.findall(r"\d+|\D+", text)]


def _place(steps: tuple[str, ...], has_parts: bool) -> tuple[str, str]:
    """Return (part, class) of an image by its path below the root."""
    if has_parts and steps[0].lower() in PARTS:
        return PARTS[steps[0].lower()], "/".join(steps[1:-1])
    return "", "/".join(steps[:-1])


def _only_child(path: Path) -> Path:
    """Step into a folder that holds one folder of class folders and no images, as archives often do."""
    children = [child for child in path.iterdir() if not child.name.startswith((".", "__MACOSX"))]
    if len(children) == 1 and children[0].is_dir() and sum(c.is_dir() for c in children[0].iterdir()) > 1:
        return _only_child(children[0])
    return path


def _images(path: Path) -> Iterator[Path]:
    """Yield every image file below `path`, by its suffix; hidden files and folders are passed over."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir():
                yield from _images(Path(entry.path))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield Path(entry.path)
