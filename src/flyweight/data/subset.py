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
    fraction: float | None = None,
    test_fraction: float = 0.15,
    split_seed: int = 0,
) -> Dataset:
    """Return the images of the first `classes` classes, fewer of those that are not test images.

    Subsets are nested: fewer classes or images are inside more. The test part stays whole, and an official validation
    part too.

    Args:
        per_class: Of each class at most so many.
        fraction: This share of all, equally many of each class as far as they reach.
        test_fraction: Share that is sealed as test part where the source has none, as `data.split.split` seals it.
        split_seed: Salt of that.

    Raises:
        DataError: The data set has fewer classes, or the fraction is not above 0 and at most 1.
    """
    if classes is not None and not 2 <= classes <= len(dataset.classes):
        raise DataError(
            f"{dataset.name} has {len(dataset.classes)} classes, and {classes} were asked for",
            do=f"choose 2 to {len(dataset.classes)}",
        )
    kept = classes or len(dataset.classes)
    found = replace(dataset.take(np.flatnonzero(dataset.labels < kept)), classes=dataset.classes[:kept])
    if per_class is None and fraction is None:
        return found
    parts = _sealed(found, test_fraction, split_seed)
    return replace(found, parts=parts).take(_thinned(found, parts, per_class, fraction))


def left_out(dataset: Dataset, *, per_class: int | None = None, fraction: float | None = None) -> list[str]:
    """Return the names of the images that `subset` leaves out; raises as it does."""
    kept = _thinned(dataset, _sealed(dataset, 0.15, 0), per_class, fraction)
    return [dataset.images.key(int(index)) for index in np.setdiff1d(np.arange(len(dataset)), kept)]


def _sealed(dataset: Dataset, test_fraction: float, split_seed: int) -> np.ndarray[Any, Any]:
    """Return the part of each image; what will be tested on is sealed first, so that it is not thinned."""
    if dataset.parts is not None and (dataset.parts == "test").any():
        return dataset.parts
    parts = np.full(len(dataset), "", dtype="<U5") if dataset.parts is None else dataset.parts.astype("<U5")
    parts[split(dataset, test_fraction=test_fraction, seed=split_seed).test] = "test"
    return parts


def _thinned(
    dataset: Dataset, parts: np.ndarray[Any, Any], per_class: int | None, fraction: float | None
) -> np.ndarray[Any, Any]:
    """Return the indices of all sealed images and of those of the others that are kept, ascending."""
    if fraction is not None and not 0.0 < fraction <= 1.0:
        raise DataError(f"a fraction of {fraction:g} of {dataset.name}", do="choose one above 0 and at most 1")
    sealed = np.isin(parts, ("test", "val"))
    chosen = np.flatnonzero(~sealed)
    if per_class is not None:
        order, place = _ranked(dataset, chosen)
        chosen = order[place < per_class]
    if fraction is not None:
        chosen = balanced_subset(dataset, chosen, max(1, round(fraction * len(chosen))))
    return np.sort(np.concatenate([np.flatnonzero(sealed), chosen]))


def _ranked(dataset: Dataset, indices: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the indices by class and then by content hash, and the rank of each within its class."""
    hashes, labels = dataset.hashes()[indices], dataset.labels[indices]
    order = np.lexsort((hashes, labels))
    starts = np.searchsorted(labels[order], labels[order])
    return indices[order], np.arange(len(order)) - starts
