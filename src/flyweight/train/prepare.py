"""From a data set and a recipe to stores of pixels, ready to batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.data.cache import FixedStore, RaggedStore, build_fixed, build_ragged
from flyweight.data.dataset import Dataset
from flyweight.data.split import Split, split
from flyweight.data.subset import balanced_subset
from flyweight.models.architecture import Architecture
from flyweight.runtime.preprocess import Preprocess, decode
from flyweight.train.recipe import DataPart, Recipe

RAGGED_MARGIN = 1.15  # short side of ragged images over the training size: room for crops, little memory
NATIVE_LIMIT = 96  # px; images of one size up to this are trained as they are
DEFAULT_SIZE = 64  # px, for photos
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """The parts of a data set as pixels. `labels` are of the whole data set; the stores hold train and val only."""

    dataset: Dataset
    split: Split
    preprocess: Preprocess
    shape_policy: str
    train_store: FixedStore | RaggedStore
    val_store: FixedStore

    @property
    def train_labels(self) -> np.ndarray[Any, Any]:
        """Labels (N,) int64 of the training images."""
        labels: np.ndarray[Any, Any] = self.dataset.labels[self.split.train]
        return labels

    @property
    def val_labels(self) -> np.ndarray[Any, Any]:
        """Labels (N,) int64 of the validation images."""
        labels: np.ndarray[Any, Any] = self.dataset.labels[self.split.val]
        return labels


def prepare(
    dataset: Dataset,
    recipe: Recipe,
    *,
    parts: Split | None = None,
    like: Architecture | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Split, decode and measure the data as the recipe says (or as it was resolved before).

    Args:
        like: The network that training begins with: pixels are normalised as it expects, not as the data would have it.

    Raises:
        DataError: An image cannot be decoded, or a class is missing from a part.
    """
    data = recipe.data
    parts = parts or split_for(dataset, data)
    side, channels = native_shape(dataset)
    channels = data.channels or channels
    preprocess = Preprocess(
        image_size=data.image_size or side,
        channels=channels,
        resize=data.resize,
        interpolation=data.interpolation,
        mean=_rechannelled(like.mean, channels) if like else (0.5,) * channels,
        std=_rechannelled(like.std, channels) if like else (0.5,) * channels,
    )
    policy = _shape_policy(recipe, preprocess, side)
    train_store: FixedStore | RaggedStore
    if policy == "ragged":
        short_side = math.ceil(preprocess.image_size * RAGGED_MARGIN)
        train_store = build_ragged(dataset, parts.train, channels, short_side, progress=progress)
    else:
        train_store = build_fixed(dataset, parts.train, preprocess, progress=progress)
    val_store = build_fixed(dataset, parts.val, preprocess, progress=progress)
    if like is not None:
        return Prepared(dataset, parts, preprocess, policy, train_store, val_store)
    mean, std = _statistics(val_store if policy == "ragged" else train_store)
    if preprocess.resize == "pad":  # the padding is the mean, and the pixels are already padded
        mean = preprocess.mean
    preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
    return Prepared(dataset, parts, preprocess, policy, train_store, val_store)


def split_for(dataset: Dataset, data: DataPart) -> Split:
    """Return the split that the recipe's data part asks for."""
    parts = split(
        dataset,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        fold=data.val_fold,
    )
    if data.train_fraction == 1.0:
        return parts
    kept = max(len(dataset.classes), round(data.train_fraction * len(parts.train)))
    return dataclasses.replace(parts, train=balanced_subset(dataset, parts.train, kept))


def native_shape(dataset: Dataset, looked_at: int = 64) -> tuple[int, int]:
    """Return (side in px, channels) that suit the images: their own where they are small and of one size.

    Raises:
        DataError: One of those looked at cannot be read.
    """
    shapes = set()
    for index in np.unique(np.linspace(0, len(dataset) - 1, looked_at).astype(int)):
        source = dataset.images.read(int(index))
        image = source if isinstance(source, np.ndarray) else decode(source, 3)
        grey = image.shape[-1] == 1 or (image.shape[-1] == 3 and bool((image == image[..., :1]).all()))
        shapes.add((*image.shape[:2], 1 if grey else min(image.shape[-1], 4)))
    channels = max(shape[2] for shape in shapes)
    sides = {shape[:2] for shape in shapes}
    height, width = next(iter(sides))
    one_size = len(sides) == 1 and height == width and height <= NATIVE_LIMIT
    return (height if one_size else DEFAULT_SIZE), channels


def _shape_policy(recipe: Recipe, preprocess: Preprocess, side: int) -> str:
    if recipe.data.shape_policy != "auto":
        return recipe.data.shape_policy
    crops = recipe.augment.random_resized_crop is not None
    return "ragged" if crops and preprocess.image_size != side else "fixed"


def _rechannelled(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value a channel: the mean of all for grey, else the given ones in turn."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(channels))


def _statistics(store: FixedStore | RaggedStore, most: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    assert isinstance(store, FixedStore)
    pixels = store.take(np.arange(0, len(store), max(1, len(store) // most))).astype(np.float64) / 255.0
    mean, std = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(max(float(s), 0.01), 4) for s in std)
