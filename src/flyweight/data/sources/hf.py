"""Hugging Face `datasets`: a folder written by `save_to_disk`, or a name on the hub."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flyweight.data.archive import scratch
from flyweight.data.dataset import Dataset, ImageFiles, Quarantined
from flyweight.data.sources.csv_manifest import COLUMNS
from flyweight.data.sources.folder import PARTS
from flyweight.errors import DataError, MissingExtraError
from flyweight.files import write_bytes
from flyweight.runtime.preprocess import FORMATS


def find(path: Path) -> bool:
    """True for a folder that `save_to_disk` wrote."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def read(name: str) -> Dataset:
    """Return a Hugging Face data set of images with one class label; images are written out once, as stored.

    Rows without a label are left out and listed in `quarantined`.

    Raises:
        MissingExtraError: The `hf` extra is not installed.
        DataError: It cannot be found, or has no image and class columns.
    """
    parts = _load(name)
    first = next(iter(parts.values()))
    image, label = _columns(name, first)
    classes = tuple(first.features[label].names)
    folder = scratch(f"hf-{name}-" + "-".join(str(table._fingerprint) for table in parts.values()))
    files: list[Path] = []
    labels: list[int] = []
    kinds: list[str] = []
    unlabelled: list[Quarantined] = []
    for part, table in parts.items():
        raw = table.cast_column(image, table.features[image].__class__(decode=False))
        for index, row in enumerate(raw):
            if row[label] is None or row[label] < 0:  # the hub's way to keep the labels of a test part secret
                unlabelled.append(Quarantined(f"{part}-{index:07d}", "it has no label"))
                continue
            files.append(_write(row[image], folder / f"{part}-{index:07d}"))
            labels.append(row[label])
            kinds.append(PARTS.get(part.lower(), ""))
    open_ones = len(set(kinds)) == 1
    images = ImageFiles(folder, tuple(files))
    return Dataset(
        Path(name).name,
        classes,
        images,
        np.array(labels, np.int64),
        None if open_ones else np.array(kinds),
        quarantined=tuple(unlabelled),
    )


def _load(name: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"{name!r} is a Hugging Face data set, which needs the package datasets", do='pip install "flyweight[hf]"'
        ) from error
    try:
        found = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
    except Exception as error:  # whatever the hub or its many formats raise
        raise DataError(
            f"the Hugging Face data set {name!r} cannot be loaded: {str(error).splitlines()[0]}",
            do="check the name; offline, give a folder written by save_to_disk",
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _columns(name: str, table: Any) -> tuple[str, str]:
    kinds = {column: type(feature).__name__ for column, feature in table.features.items()}
    image = next((column for column, kind in kinds.items() if kind == "Image"), None)
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    label = next((column for column in labels if column in COLUMNS["label"]), labels[0] if labels else None)
    if image is None or label is None:
        raise DataError(
            f"{name!r} has the columns {kinds}; an Image and a ClassLabel are needed",
            do="cast_column them to these kinds",
        )
    return image, label


def _write(stored: dict[str, Any], stem: Path) -> Path:
    content = stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()
    path = stem.with_suffix(f".{_format(content)}")
    if not path.exists():
        write_bytes(path, content)
    return path


def _format(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            return (picture.format or "png").lower()
    except (OSError, Image.DecompressionBombError):  # the audit names it; it is not for a source to judge pixels
        return "unreadable"
