"""The real data sets, where they are: true counts and classes, and the same pixels in every form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data.dataset import Dataset, ImageArray, ImageFiles
from flyweight.data.sources import load_data


def pixels(dataset: Dataset) -> Counter[tuple[str, str, bytes]]:
    """How often each (part, class, pixels) occurs."""
    images = dataset.images
    if isinstance(images, ImageFiles):
        images = ImageArray(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in images.paths]), "x")
    assert dataset.parts is not None
    names = [dataset.classes[label] for label in dataset.labels]
    return Counter(zip(dataset.parts.tolist(), names, images.hashes().tolist(), strict=True))


def needed(path: Path) -> str:
    if not path.exists():
        pytest.skip(f"FLYWEIGHT_DATA has no {path.name}")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["cifar10.npz", "cifar10"])
def test_cifar10_holds_the_same_pixels_as_the_original_pickles(real_data: Path, form: str) -> None:
    original = load_data(needed(real_data / "cifar-10-batches-py"))
    assert pixels(load_data(needed(real_data / form))) == pixels(original)


@pytest.mark.parametrize(
    ("name", "below", "train", "test", "classes"),
    [
        ("mnist", "MNIST", 60_000, 10_000, 10),
        ("cifar10", "cifar-10-batches-py", 50_000, 10_000, 10),
    ],
)
def test_named_sets_have_their_published_sizes(
    real_data: Path, name: str, below: str, train: int, test: int, classes: int
) -> None:
    needed(real_data / below)
    dataset = load_data(f"{name}:{real_data}")
    assert dataset.parts is not None
    assert (Counter(dataset.parts.tolist()), len(dataset.classes)) == ({"train": train, "test": test}, classes)


def test_tiny_imagenet_has_every_file_of_train_and_fifty_test_images_of_each_class(real_data: Path) -> None:
    root = Path(needed(real_data / "tiny-imagenet-200"))
    dataset = load_data(f"tiny-imagenet:{real_data}")
    assert dataset.parts is not None
    files = sum(1 for _ in (root / "train").glob("*/images/*.JPEG"))  # a copy may hold fewer than the 500 per class
    assert (dataset.parts == "train").sum() == files
    assert np.bincount(dataset.labels[dataset.parts == "test"]).tolist() == [50] * 200
