"""Arrays in an .npz: x_train, y_train (x_val, y_val, x_test, y_test, classes), or images and labels."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset, ImageArray
from flyweight.errors import DataError

PARTS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def find(path: Path) -> Path | None:
    """Return the .npz: the path itself, or the only one in a folder."""
    if path.is_file():
        return path if path.suffix == ".npz" else None
    found = list(path.glob("*.npz"))
    return found[0] if len(found) == 1 else None


def read(path: Path) -> Dataset:
    """Return the data set in the file. Nothing in it is unpickled.

    Raises:
        DataError: Not an .npz, arrays missing, of other shapes, or labels that are not one class per image.
    """
    arrays = _load(path)
    keys = [(part, f"x_{part}", f"y_{part}") for part in PARTS if f"x_{part}" in arrays] or [("", "images", "labels")]
    wanted = [name for _, *pair in keys for name in pair]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has no {', '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}",
            do="save x_train, y_train (and x_test, y_test, classes), or images and labels",
        )
    images = [_images(path, x, arrays[x]) for _, x, _ in keys]
    labels = [_labels(path, y, arrays[y], len(found)) for (_, _, y), found in zip(keys, images, strict=True)]
    together = np.concatenate(labels)
    named = arrays.get("classes", arrays.get("class_names", np.arange(int(together.max(initial=0)) + 1)))
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in named.ravel().tolist())
    kinds = np.concatenate(
        [np.full(len(found), PARTS.get(part, "")) for (part, _, _), found in zip(keys, labels, strict=True)]
    )
    data = np.concatenate(images) if len(images) > 1 else images[0]
    return Dataset(path.stem, classes, ImageArray(data, path.stem), together, kinds if keys[0][0] else None, root=path)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}", do="save plain arrays with numpy.savez") from error


def _images(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[-1] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
        raise DataError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}; needed is uint8 "
            "(N, H, W) or (N, H, W, C) with C 1, 3 or 4",
            do=f"save {name} as uint8 pixels from 0 to 255",
        )
    return np.ascontiguousarray(array)


def _labels(path: Path, name: str, array: NDArray[Any], count: int) -> NDArray[np.int64]:
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim == 2:
        raise DataError(
            f"{path}: {name} has shape {array.shape}: several labels per image cannot be used",
            do="save one class number per image (argmax of one-hot rows)",
        )
    if flat.ndim != 1 or len(flat) != count or not np.issubdtype(flat.dtype, np.integer):
        raise DataError(
            f"{path}: {name} is {array.dtype} of shape {array.shape} for {count} images",
            do=f"save {name} as one integer per image",
        )
    return flat.astype(np.int64)
