"""The catalogue of sources. A new one is a file here with `find` and `read`, and a line in SOURCES."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyweight.data.archive import is_archive, unpack
from flyweight.data.dataset import Dataset
from flyweight.data.sources import cifar, csv_manifest, folder, hf, idx, imagenet, npz, sample, tiny_imagenet
from flyweight.errors import DataError


@dataclass(frozen=True)
class Source:
    """One kind of data set.

    Attributes:
        find: Gives the place inside a path where this kind lies, or None where it does not.
        read: Reads it from there.
        label: For people.
    """

    find: Callable[[Path], Path | None]
    read: Callable[[Path], Dataset]
    label: str


# In the order in which an unnamed path is tried: the most particular first.
SOURCES: dict[str, Source] = {
    "csv": Source(csv_manifest.find, csv_manifest.read, "a CSV with the columns path and label"),
    "npz": Source(npz.find, npz.read, "an .npz with x_train, y_train (x_test, y_test, classes) or images, labels"),
    "cifar": Source(cifar.find, cifar.read, "CIFAR-10 or CIFAR-100 in the original pickle files"),
    "idx": Source(idx.find, idx.read, "the four IDX files of the MNIST family, .gz or not"),
    "tiny-imagenet": Source(tiny_imagenet.find, tiny_imagenet.read, "Tiny ImageNet with val_annotations.txt"),
    "folder": Source(folder.find, folder.read, "one folder of images per class, perhaps below train, val, test"),
}
NAMED: dict[str, Callable[[Path], Dataset]] = {
    "mnist": idx.read_mnist,
    "fashion-mnist": idx.read_fashion_mnist,
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
    "tiny-imagenet": tiny_imagenet.read_below,
    "imagenet": imagenet.read_below,
}


def load_data(path: str | Path, *, cache: Path | None = None, group: str | None = None) -> Dataset:
    """Return the data set at `path`; nothing is decoded yet.

    Args:
        path: "sample", NAME:DIR with a name of `NAMED`, "hf:NAME" or a local Hugging Face folder, or any folder, file
            or archive that one of `SOURCES` recognises.
        cache: Where archives are unpacked; by default the pixel cache's folder.
        group: A pattern with one group, matched against each image's name; images with the same text stay on one side
            of a split. For a CSV: the name of a column.

    Raises:
        DataError: Nothing there, nothing recognised, or the content is wrong.
        MissingExtraError: Hugging Face data without the `hf` extra.
    """
    text = str(path)
    dataset = _load(text, cache)
    return dataset if group is None else _grouped(dataset, group)


def _load(text: str, cache: Path | None) -> Dataset:
    if text == "sample":
        return sample.read()
    name, colon, rest = text.partition(":")
    if colon and name == "hf":
        return hf.read(rest)
    if colon and name in NAMED:
        return NAMED[name](_inside(_existing(Path(rest)), cache))
    found = _inside(_existing(Path(text)), cache)
    if hf.find(found):
        return hf.read(str(found))
    for source in SOURCES.values():
        place = source.find(found)
        if place is not None:
            return source.read(place)
    raise _unrecognised(found)


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        near = path.parent if path.parent.is_dir() else Path()
        there = sorted(entry.name for entry in near.iterdir())[:8] if near.is_dir() else []
        raise DataError(
            f"there is no data at {str(path)!r}",
            do=f"check the path; beside it are {', '.join(there) or 'no files'}; or try: flyweight fit sample; "
            f"before a folder may stand {', '.join(f'{name}:' for name in NAMED)}",
        )
    return path


def _inside(path: Path, cache: Path | None) -> Path:
    """Unpack an archive, or a folder that holds nothing but archives."""
    if path.is_file():
        return unpack([path], cache) if is_archive(path) else path
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    archives = sorted(entry for entry in entries if entry.is_file() and is_archive(entry))
    others = [e for e in entries if e.is_dir() or e.suffix.lower() in {".csv", ".tsv", ".npz"} or "-ubyte" in e.name]
    return unpack(archives, cache) if archives and not others else path


def _unrecognised(path: Path) -> DataError:
    if path.is_file():
        seen = f"a file of {path.stat().st_size:,} bytes"
    else:
        entries = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
        seen = f"{len(entries)} entries: {', '.join(entries[:6])}" if entries else "nothing: the folder is empty"
    kinds = "; ".join(source.label for source in SOURCES.values())
    return DataError(f"no labelled images in {str(path)!r}; found {seen}", do=f"give one of: {kinds}")


def _grouped(dataset: Dataset, group: str) -> Dataset:
    column = csv_manifest.column(dataset.root, group) if dataset.root is not None else None
    if column is not None:
        return replace(dataset, groups=column, group_by=group)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise DataError(
            f"--group {group!r} is not a pattern: {error}", do=r"write e.g. --group '(person\d+)_'"
        ) from error
    if pattern.groups != 1:
        raise DataError(
            f"--group {group!r} has {pattern.groups} groups in parentheses",
            do=r"put what names the group into one pair, e.g. '(person\d+)_'",
        )
    names: list[Any] = []
    for index in range(len(dataset)):
        found = pattern.search(dataset.images.key(index))
        alone = csv_manifest.ALONE + dataset.images.key(index)  # by name: its place changes as the folder grows
        names.append((found.group(1) if found else None) or alone)
    if all(str(name).startswith(csv_manifest.ALONE) for name in names):
        raise DataError(
            f"--group {group!r} matches none of {len(names)} images, such as {dataset.images.key(0)!r}",
            do="match it against that name",
        )
    return replace(dataset, groups=tuple(names), group_by=group)
