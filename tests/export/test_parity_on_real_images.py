"""The trained network in torch against the shipped file in the torch-free runtime, from image files, 10,000 of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flyweight.data.cache import build_fixed
from flyweight.data.sources import load_data
from flyweight.export import export
from flyweight.export.parity import torch_logits
from flyweight.measure.verify import logits_of
from flyweight.runtime.predict import Predictor
from flyweight.train.recipe import load_recipe
from flyweight.train.run import train_and_wait


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_torch_and_the_shipped_file_agree_on_a_whole_test_set_of_image_files(real_data: Path, tmp_path: Path) -> None:
    files = real_data / "cifar10"
    if not (files / "test").is_dir():
        pytest.skip(f"{files} holds no folder test/ of CIFAR-10 images")
    arrays = load_data(f"cifar10:{real_data}")
    recipe = load_recipe("cifar10").with_settings(["epochs=1", "threads=1", "model.name=tiny_cnn_8"])
    trained = train_and_wait(arrays, recipe, tmp_path / "run")
    bundle = export(trained, arrays, tmp_path / "bundle")
    dataset = load_data(files)
    assert dataset.parts is not None
    test = np.flatnonzero(dataset.parts == "test")
    assert len(test) == 10_000
    logits, readable, unreadable = logits_of(Predictor(bundle, threads=1), dataset, test)
    assert not unreadable
    pixels = np.asarray(build_fixed(dataset, readable, trained.preprocess).pixels).transpose(0, 3, 1, 2)
    torch.set_num_threads(1)
    expected = torch_logits(trained.network(), np.ascontiguousarray(pixels))
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.999
    assert np.abs(logits - expected).max() <= bundle.variant().tolerance
