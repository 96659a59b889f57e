"""CIFAR-10 and CIFAR-100: the original pickle files, read by an unpickler that can build nothing but arrays."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset, ImageArray
from flyweight.data.sources import folder, npz
from flyweight.errors import DataError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LAYOUTS = {
    "cifar-10-batches-py": ([f"data_batch_{n}" for n in range(1, 6)], ["test_batch"], "batches.meta"),
    "cifar-100-python": (["train"], ["test"], "meta"),
}
# All that the original files need; nothing here can run code of the file's choice.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def find(path: Path) -> Path | None:
    """Return the folder of batches at or right below a path."""
    if not path.is_dir():
        return None
    places = (path, *(path / name for name in LAYOUTS))
    return next((place for place in places if _layout(place)), None)


def read(path: Path) -> Dataset:
    """Return the data set; its test batch is the official test part. CIFAR-100 has its 100 fine classes.

    Raises:
        DataError: A file is missing, damaged, or holds something else than arrays.
    """
    layout = _layout(path)
    assert layout is not None
    train, test, meta = LAYOUTS[layout]
    parts = [("train", *_batch(path / name)) for name in train] + [("test", *_batch(path / name)) for name in test]
    described = _unpickle(path / meta)
    names = described.get("label_names") or described.get("fine_label_names") or CIFAR10
    name = "cifar10" if layout == "cifar-10-batches-py" else "cifar100"
    return Dataset(
        name,
        tuple(entry.decode() if isinstance(entry, bytes) else str(entry) for entry in names),
        ImageArray(np.concatenate([images for _, images, _ in parts]), name),
        np.concatenate([labels for _, _, labels in parts]),
        np.concatenate([np.full(len(labels), part) for part, _, labels in parts]),
        root=path,
    )


def read_cifar10(path: Path) -> Dataset:
    """Return CIFAR-10 at or below a folder: pickle batches, cifar10.npz or folders of images."""
    return _named(path, "cifar10", "cifar-10-batches-py")


def read_cifar100(path: Path) -> Dataset:
    """Return CIFAR-100 at or below a folder: the original pickles, cifar100.npz or folders of images."""
    return _named(path, "cifar100", "cifar-100-python")


def _named(path: Path, name: str, layout: str) -> Dataset:
    if path.is_file():
        return npz.read(path)
    if (path / f"{name}.npz").is_file():
        return npz.read(path / f"{name}.npz")
    for place in (path, path / layout):
        if _layout(place) == layout:
            return read(place)
    for place in (path / name, path):
        if place.is_dir() and folder.find(place) and (place / "train").is_dir():
            return folder.read(place)
    raise DataError(
        f"no {name} at or below {str(path)!r}", do=f"it needs {name}.npz, {layout}/ or {name}/train/CLASS/*.png there"
    )


def _layout(path: Path) -> str | None:
    """Return which of the two data sets a folder holds."""
    for layout, (train, test, meta) in LAYOUTS.items():
        if (path / meta).is_file() and ((path / train[0]).is_file() or (path / test[0]).is_file()):
            return layout
    return None


def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = _unpickle(path)
    data, labels = content.get("data"), content.get("labels", content.get("fine_labels"))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072 or labels is None:
        raise DataError(f"{path} is no CIFAR batch: it holds {sorted(content)}", do="fetch the original archive again")
    if len(data) != len(labels):
        raise DataError(
            f"{path} has {len(data)} images and {len(labels)} labels", do="fetch the original archive again"
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.asarray(labels, np.int64)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        MemoryError,
    ) as error:
        raise DataError(
            f"{path} cannot be read as a CIFAR file: {error}", do="fetch the original archive again"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a batch", do="fetch the original archive again")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}
