"""Answers over an image and its mirror image: the mean of both logits, in torch and in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from flyweight.data.sources import load_data
from flyweight.export import export
from flyweight.export.qdq import left_in_float
from flyweight.measure.verify import verify_bundle
from flyweight.models.architecture import Architecture
from flyweight.models.cost import count
from flyweight.train.recipe import Recipe
from flyweight.train.run import train_and_wait
from flyweight.train.trained import Trained

from .settled import pixels, settle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    few = load_data("sample").take(np.concatenate([np.arange(600), np.arange(6000, 6200)]))
    recipe = Recipe(
        model={"name": "tiny_vgg_16"}, stages=[{"epochs": 1}, {"epochs": 1, "quantize": "int8"}], batch_size=64,
        threads=1, precision="fp32", channels_last=True, compile=False,
    )  # fmt: skip
    return train_and_wait(few, recipe, tmp_path_factory.mktemp("run"))


def test_the_logits_are_the_mean_of_both() -> None:
    architecture = Architecture("tiny_cnn_8", 10, 3, 20)
    plain = settle(architecture.fold().build(), 3, 20)
    mirrored = architecture.mirror().build()
    mirrored.load_state_dict(plain.state_dict())
    images = torch.from_numpy(pixels(4, 3, 20))
    with torch.no_grad():
        expected = (plain(images) + plain(images.flip(-1))) / 2
        assert torch.allclose(mirrored.eval()(images), expected, atol=1e-6)
        assert torch.allclose(mirrored(images.flip(-1)), expected, atol=1e-6)


def test_once_is_enough() -> None:
    assert Architecture("tiny_cnn_8", 10).mirror().mirror() == Architecture("tiny_cnn_8", 10).mirror()


def test_the_int8_file_does_it_in_integers_at_twice_the_cost(trained: Trained, tmp_path: Path) -> None:
    few = load_data("sample").take(np.concatenate([np.arange(600), np.arange(6000, 6200)]))
    plain = export(trained, few, tmp_path / "plain", training=False)
    both = export(trained.mirrored(), few, tmp_path / "both", training=False)
    assert verify_bundle(both).ok
    one, two = plain.variant("int8").file, both.variant("int8").file
    assert left_in_float(two) == []
    assert count(two).macs == 2 * count(one).macs
    assert count(two).params == count(one).params
    assert two.stat().st_size < 1.3 * one.stat().st_size + 20_000  # weights are there once
    images = pixels(8, 1, 28)
    answers = [
        onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]).run(None, {"images": x})[0]
        for path, x in ((one, images), (one, np.ascontiguousarray(images[..., ::-1])), (two, images))
    ]
    assert np.allclose(answers[2], (answers[0] + answers[1]) / 2, atol=1e-4)


def test_a_mirrored_run_reloads_with_equal_logits(trained: Trained, tmp_path: Path) -> None:
    mirrored = trained.mirrored()
    mirrored.save(tmp_path)
    images = torch.from_numpy(pixels(4, 1, 28))
    with torch.no_grad():
        assert torch.equal(Trained.load(tmp_path).network()(images), mirrored.network()(images))
