"""A folder of class folders, flat or below train / val / test; the class is the path below the part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from flyweight.data.dataset import Dataset, ImageFiles, label_array
from flyweight.errors import DataError
from flyweight.runtime.preprocess import SUFFIXES

PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
PARTS |= {"test": "test", "testing": "test", "eval": "test"}
HIDDEN = (".", "__MACOSX")


def find(path: Path) -> Path | None:
    """Return the folder itself where there are images in folders below it."""
    if not path.is_dir():
        return None
    found = next((entry for entry in images_below(path) if entry.parent != path), None)
    if found is None and any(True for _ in images_below(path)):
        raise DataError(
            f"{str(path)!r} holds images but no class folders",
            do="put the images of each class into a folder of its own, or list them in a CSV with path and label",
        )
    return path if found else None


def read(path: Path) -> Dataset:
    """Return the images below `path`; classes in natural order (class2 before class10).

    Raises:
        DataError: Images outside class folders, or a folder that cannot be read.
    """
    path = _only_child(path)
    files = sorted(images_below(path), key=str)
    has_parts = _has_parts(path)
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
    """Return a sort key that counts: class2 before class10. Different names have different keys: the order is one."""
    runs = re.findall(r"\d+|\D+", text)
    return [*((0, int(run), "") if run.isdecimal() else (1, 0, run.lower()) for run in runs), (-1, 0, text)]


def _place(steps: tuple[str, ...], has_parts: bool) -> tuple[str, str]:
    """Return (part, class) of an image by its path below the root."""
    if has_parts and steps[0].lower() in PARTS:
        return PARTS[steps[0].lower()], "/".join(steps[1:-1])
    return "", "/".join(steps[:-1])


def _has_parts(path: Path) -> bool:
    """True where a folder called train, val, ... holds class folders; a class may be called so (bus, car, train)."""
    folders, _ = _inside(path)
    called = [folder for folder in folders if folder.name.lower() in PARTS]
    return bool(called) and (len(called) == len(folders) or any(_inside(folder)[0] for folder in called))


def _only_child(path: Path) -> Path:
    """Step through folders that hold one folder and no images, as archives often do, down to the class folders."""
    below = path
    while True:
        folders, images = _inside(below)
        if len(folders) != 1 or images:
            return below if len(folders) > 1 else path
        below = folders[0]


def _inside(path: Path) -> tuple[list[Path], bool]:
    """Return the folders right inside, and whether images are there too."""
    with _entries(path) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(HIDDEN)]
        return [Path(entry.path) for entry in seen if entry.is_dir()], any(_is_image(entry.name) for entry in seen)


def images_below(path: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield every image file below `path`, by its suffix; hidden files and folders are passed over."""
    real = os.path.realpath(path)
    if real in above:  # a link to a folder above: its images are seen already
        return
    with _entries(path) as entries:
        for entry in entries:
            if entry.name.startswith(HIDDEN):
                continue
            if entry.is_dir():
                yield from images_below(Path(entry.path), (*above, real))
            elif _is_image(entry.name):
                yield Path(entry.path)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _entries(path: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(path)
    except OSError as error:
        raise DataError(
            f"the folder {str(path)!r} cannot be read: {(error.strerror or str(error)).lower()}",
            do="check its permissions, or move it elsewhere",
        ) from error
