"""The data set inside the package: 7,000 images of Fashion-MNIST, equally many of each class."""

from __future__ import annotations

from importlib import resources

import numpy as np

from flyweight.data.dataset import Dataset, ImageArray


def read() -> Dataset:
    """Return the embedded sample: 6,000 training and 1,000 test images, 28 px, grey, ten classes."""
    with resources.files("flyweight.data.sample").joinpath("fashion.npz").open("rb") as file, np.load(file) as arrays:
        images = np.concatenate([arrays["x_train"], arrays["x_test"]])[..., None]
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]]).astype(np.int64)
        parts = np.array(["train"] * len(arrays["x_train"]) + ["test"] * len(arrays["x_test"]))
        classes = tuple(str(name) for name in arrays["classes"])
    return Dataset("sample", classes, ImageArray(images, "sample"), labels, parts)
