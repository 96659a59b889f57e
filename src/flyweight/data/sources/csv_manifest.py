"""A CSV that lists images: path, label, and perhaps split and group."""

from __future__ import annotations

import csv
import difflib
from pathlib import Path

import numpy as np

from flyweight.data.dataset import Dataset, ImageFiles, label_array
from flyweight.data.sources.folder import PARTS, natural
from flyweight.errors import DataError

SUFFIXES = frozenset({".csv", ".tsv"})
COLUMNS = {
    "path": ("path", "file", "filename", "image", "image_path", "filepath"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "part", "subset", "fold"),
    "group": ("group", "subject", "person", "patient", "video"),
}

ALONE = "\0alone "  # before the name of an image that belongs to no group


def find(path: Path) -> Path | None:
    """Return the CSV: the path itself, or the one in a folder that lists images; other tables may lie beside it."""
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    listing = [entry for entry in found if _lists_images(entry)]
    if len(listing) > 1:
        raise DataError(
            f"{str(path)!r} holds several lists of images: {', '.join(entry.name for entry in listing)}",
            do=f"name one of them, such as {str(listing[0])!r}; one list can hold all parts in a column 'split'",
        )
    alone = found[:1] if len(found) == 1 and not any(entry.is_dir() for entry in path.iterdir()) else []
    return next(iter(listing or alone), None)


def read(path: Path) -> Dataset:
    """Return the images listed; paths are relative to the CSV.

    Raises:
        DataError: Columns or files are missing, a split has an unknown name, an image has several labels.
    """
    rows, names = _rows(path)
    files = [path.parent / row[names["path"]] for row in rows]
    missing = [row[names["path"]] for row, file in zip(rows, files, strict=True) if not file.is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(rows)} files are not there, such as {missing[0]!r}",
            do=f"paths are relative to {str(path.parent)!r}; correct the column {names['path']!r}",
        )
    labels = [row[names["label"]].strip() for row in rows]
    _one_label_each(path, files, labels)
    classes = tuple(sorted(set(labels), key=natural))
    return Dataset(
        name=path.stem,
        classes=classes,
        images=ImageFiles(path.parent, tuple(files)),
        labels=label_array(labels, classes),
        parts=_parts(path, rows, names.get("split")),
        groups=_groups(rows, names["group"], names["path"]) if "group" in names else None,
        root=path,
        group_by=names.get("group"),
    )


def column(path: Path, name: str) -> tuple[str, ...] | None:
    """Return the groups (N,) that a column of a CSV names; None where it is no CSV or has no such column."""
    if path.suffix.lower() not in SUFFIXES:
        return None
    rows, names = _rows(path)
    return _groups(rows, name, names["path"]) if rows and name in rows[0] else None


def _groups(rows: list[dict[str, str]], column: str, path: str) -> tuple[str, ...]:
    """An empty cell is a group of its own: those images are not the same person."""
    return tuple(row[column] or f"{ALONE}{row[path]}" for row in rows)


def _lists_images(path: Path) -> bool:
    try:
        names = _roles(_table(path, rows=False)[1])
    except DataError:  # not a table of ours; what is beside it may be
        return False
    return "path" in names and "label" in names


def _table(path: Path, *, rows: bool = True) -> tuple[list[dict[str, str]], list[str]]:
    """Return (rows, names of the columns)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = list(reader.fieldnames or ())
            return (list(reader) if rows else []), header
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}", do="save it as UTF-8 CSV") from error


def _roles(header: list[str]) -> dict[str, str]:
    """Return the column of each role that has one."""
    lower = {name.strip().lower(): name for name in header}
    return {
        role: next(lower[alias] for alias in aliases if alias in lower)
        for role, aliases in COLUMNS.items()
        if any(alias in lower for alias in aliases)
    }


def _rows(path: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    rows, header = _table(path)
    lower, names = {name.strip().lower(): name for name in header}, _roles(header)
    for role in ("path", "label"):
        if role not in names:
            close = difflib.get_close_matches(role, lower, n=1, cutoff=0.5)
            hint = f"rename {lower[close[0]]!r} to {role!r}" if close else f"add a column {role!r}"
            raise DataError(f"{path} has no column {role!r}; its columns are {', '.join(header) or 'none'}", do=hint)
    short = next(
        (n for n, row in enumerate(rows, 2) if not row[names["path"]] or not (row[names["label"]] or "").strip()), None
    )
    if short is not None:
        raise DataError(f"{path}, line {short}: path or label is empty", do="fill it in or remove the line")
    return rows, names


def _one_label_each(path: Path, files: list[Path], labels: list[str]) -> None:
    several = next((label for label in labels if any(sign in label for sign in "|;,")), None)
    if several is not None:
        raise DataError(
            f"{path}: the label {several!r} names several classes; Flyweight classifies into exactly one",
            do="choose one class per image, or make each combination a class of its own name",
        )
    first: dict[Path, str] = {}
    for file, label in zip(files, labels, strict=True):
        if first.setdefault(file, label) != label:
            raise DataError(
                f"{path}: {file.name!r} is listed as {first[file]!r} and as {label!r}; multi-label data cannot be used",
                do="keep one line per image",
            )


def _parts(
    path: Path, rows: list[dict[str, str]], column: str | None
) -> np.ndarray[tuple[int], np.dtype[np.str_]] | None:
    if column is None:
        return None
    unknown = {row[column] for row in rows if row[column] and row[column].strip().lower() not in PARTS}
    if unknown:
        raise DataError(
            f"{path}: the column {column!r} has {', '.join(repr(name) for name in sorted(unknown)[:5])}",
            do=f"use train, val or test (or leave it empty); {', '.join(sorted(PARTS))} are understood",
        )
    return np.array([PARTS.get((row[column] or "").strip().lower(), "") for row in rows])
