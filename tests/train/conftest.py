"""A real data set that trains in a second: the first images of the embedded sample."""

from __future__ import annotations

import numpy as np
import pytest

from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.train.recipe import Recipe


@pytest.fixture(scope="session")
def few() -> Dataset:
    """600 training and 200 test images of the sample."""
    sample = load_data("sample")
    return sample.take(np.concatenate([np.arange(600), np.arange(6000, 6200)]))


@pytest.fixture
def quick() -> Recipe:
    """Two epochs of a small network, everything that is probed set by hand."""
    return Recipe.model_validate(
        {
            "model": {"name": "tiny_cnn_4"},
            "augment": {"shift": 2, "hflip": 0.5},
            "epochs": 2,
            "batch_size": 64,
            "ema_decay": 0.9,
            "precision": "fp32",
            "channels_last": True,
            "compile": False,
            "threads": 1,
        }
    )
