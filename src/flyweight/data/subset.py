"""Smaller data sets inside larger ones: the first classes, and equally many images of each by content hash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flyweight.data.dataset import Dataset
from flyweight.errors import DataError


def balanced_subset(dataset: Dataset, indices: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return at most `size` of `indices`, equal over classes, by content hash: small subsets lie in larger ones."""
    if size >= len(indices):
        return indices
    hashes, labels = dataset.hashes()[indices], dataset.labels[indices]
    order = np.lexsort((hashes, labels))
    starts = np.searchsorted(labels[order], labels[order])
    place = np.arange(len(order)) - starts  # rank of each image within its class
    chosen = order[np.lexsort((hashes[order], place))][:size]
    return np.sort(indices[chosen])


def subset(dataset: Dataset, *, classes: int | None = None, per_class: int | None = None) -> Dataset:
    """Return the images of the first `classes` classes, of each at most `per_class` that are not test images.

    Subsets are nested: fewer classes or images are inside more. The test and validation parts stay whole.

    Raises:
        DataError: The data set has fewer classes.
    """
    if classes is not None and not 2 <= classes <= len(dataset.classes):
        raise DataError(
            f"{dataset.name} has {len(dataset.classes)} classes, and {classes} were asked for",
            do=f"choose 2 to {len(dataset.classes)}",
        )
    kept = classes or len(dataset.classes)
    inside = np.flatnonzero(dataset.labels < kept)
    found = replace(dataset.take(inside), classes=dataset.classes[:kept])
    if per_class is None:
        return found
    parts = found.parts if found.parts is not None else np.full(len(found), "")
    sealed = np.isin(parts, ("test", "val"))
    training = balanced_subset(found, np.flatnonzero(~sealed), per_class * kept)
    return found.take(np.sort(np.concatenate([np.flatnonzero(sealed), training])))
