"""A small run on real images that every method of compression can begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flyweight.compress.context import Context
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.export import export
from flyweight.runtime.bundle import Bundle
from flyweight.train.recipe import Recipe
from flyweight.train.run import train_and_wait
from flyweight.train.trained import Trained


@pytest.fixture(scope="session")
def few() -> Dataset:
    """600 training and 200 test images of the sample."""
    sample = load_data("sample")
    return sample.take(np.concatenate([np.arange(600), np.arange(6000, 6200)]))


@pytest.fixture(scope="session")
def run_folder(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a network with residual blocks; a third of its images validate."""
    out = tmp_path_factory.mktemp("run") / "run"
    recipe = Recipe.model_validate(
        {
            "model": {"name": "tiny_resnet8_8"}, "epochs": 4, "batch_size": 64, "precision": "fp32", "threads": 1,
            "channels_last": True, "compile": False, "data": {"val_fraction": 0.33}, "optim": {"lr": 0.05},
        }
    )  # fmt: skip
    train_and_wait(few, recipe, out)
    return out


@pytest.fixture(scope="session")
def trained(run_folder: Path) -> Trained:
    return Trained.load(run_folder)


@pytest.fixture(scope="session")
def bundle(trained: Trained, few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(trained, few, tmp_path_factory.mktemp("bundle") / "small", training=False)


@pytest.fixture
def context(few: Dataset, run_folder: Path, tmp_path: Path) -> Context:
    return Context(few, tmp_path / "step", run_folder, device="cpu")
