"""Real images for a conversion: some to calibrate on, others to compare the files on, and none of the test part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.split import split_from_rule
from flyweight.errors import DataError
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.preprocess import Preprocess

CALIBRATION_IMAGES = 512
PARITY_IMAGES = 2000
LEAST_PARITY = 1000  # with fewer the card says how many


@dataclass(frozen=True)
class RealImages:
    """Images (N, C, S, S) uint8, as the runtime would see them.

    Attributes:
        calibration: Of the training part, the classes in turn.
        parity: Of the validation part, filled up with training images that calibrate nothing.
        source: Where they come from, for the card.
    """

    calibration: NDArray[np.uint8]
    parity: NDArray[np.uint8]
    source: str


def golden_only(bundle: Bundle) -> RealImages:
    """Return the golden images alone, where no data was given: enough for a first look, nothing to calibrate on."""
    images, _ = bundle.golden(bundle.variant())
    return RealImages(images[:0], images, "the golden images of the bundle")


def real_images(bundle: Bundle, dataset: Dataset) -> RealImages:
    """Return images of the data set a bundle was trained on, by the split that the bundle recorded.

    Raises:
        DataError: The data has other classes, or cannot be split or read.
    """
    if set(dataset.classes) != set(bundle.classes):
        raise DataError(
            f"{dataset.name!r} has the classes {', '.join(dataset.classes[:5])}, …; the bundle {bundle.name!r} knows "
            f"{', '.join(bundle.classes[:5])}, …",
            do="give the data that the bundle was trained on",
        )
    parts = split_from_rule(dataset, bundle.split)
    train = parts.train[spread(dataset.labels[parts.train], len(parts.train))]
    calibrating, rest = train[:CALIBRATION_IMAGES], train[CALIBRATION_IMAGES:]
    compared = np.concatenate([parts.val, rest])[:PARITY_IMAGES]
    return RealImages(
        calibration=_pixels(dataset, calibrating, bundle.preprocess),
        parity=_pixels(dataset, compared, bundle.preprocess),
        source=f"validation and training images of {dataset.name}",
    )


def spread(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` positions (or all), the classes in turn."""
    order = np.argsort(labels, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    chosen: NDArray[np.int64] = order[np.lexsort((labels[order], place))][:count]
    return chosen


def _pixels(dataset: Dataset, indices: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
    store = build_fixed(dataset, np.sort(indices), preprocess)
    return np.ascontiguousarray(np.asarray(store.pixels).transpose(0, 3, 1, 2))
