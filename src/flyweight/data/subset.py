"""Smaller data sets inside larger ones: the first classes, and equally many images of each by content hash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flyweight.data.dataset import Dataset
from flyweight.data.split import split
from flyweight.errors import DataError


def balanced_subset(dataset: Dataset, indices: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return at most `size` of `indices`, equal over classes, by content hash: small subsets lie in larger ones."""
    if size >= len(indices):
        return indices
    order, place = _ranked(dataset, indices)
    chosen = order[np.lexsort((dataset.hashes()[order], place))][:size]
    return np.sort(chosen)


def subset(
    dataset: Dataset,
    *,
    classes: int | None = None,
    per_class: int | None = None,
    test_fraction: float = 0.15,
    split_seed: int = 0,
) -> Dataset:
    """Return the images of the first `classes` classes, of each at most `per_class` that are not test images.

    Subsets are nested: fewer classes or images are inside more. The test part stays whole, and an official validation
    part too.

    Args:
        test_fraction: Share that is sealed as test part where the source has none, as `data.split.split` seals it.
        split_seed: Salt of that.

    Raises:
        DataError: The data set has fewer classes.
    """
    if classes is not None and not 2 <= classes <= len(dataset.classes):
        raise DataError(
            f"{dataset.name} has {len(dataset.classes)} classes, and {classes} were asked for",
            do=f"choose 2 to {len(dataset.classes)}",
        )
    kept = classes or len(dataset.classes)
    found = replace(dataset.take(np.flatnonzero(dataset.labels < kept)), classes=dataset.classes[:kept])
    if per_class is None:
        return found
    # What will be tested on is sealed first, so that it is not thinned.
    if found.parts is None or not (found.parts == "test").any():
        chosen = split(found, test_fraction=test_fraction, seed=split_seed).test
        parts = np.full(len(found), "", dtype="<U5") if found.parts is None else found.parts.astype("<U5")
        parts[chosen] = "test"
        found = replace(found, parts=parts)
    assert found.parts is not None
    sealed = np.isin(found.parts, ("test", "val"))
    order, place = _ranked(found, np.flatnonzero(~sealed))
    return found.take(np.sort(np.concatenate([np.flatnonzero(sealed), order[place < per_class]])))


def _ranked(dataset: Dataset, indices: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the indices by class and then by content hash, and the rank of each within its class."""
    hashes, labels = dataset.hashes()[indices], dataset.labels[indices]
    order = np.lexsort((hashes, labels))
    starts = np.searchsorted(labels[order], labels[order])
    return indices[order], np.arange(len(order)) - starts
