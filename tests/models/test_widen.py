"""A wider network of the same kind computes the same: what is added is zero throughout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.errors import ModelError
from flyweight.export import export
from flyweight.measure.verify import verify_bundle
from flyweight.models.architecture import Architecture
from flyweight.models.widen import multiple_of_four, widen
from flyweight.train.recipe import Recipe
from flyweight.train.run import train_and_wait

from .settled import pixels, settle

ODD = {"width": 10, "depth": 2, "stem": 7}


def test_channels_are_rounded_up_to_multiples_of_four() -> None:
    assert multiple_of_four(Architecture("tiny_sep_12", 10, 1, 28, ODD)) == {"width": 12, "stem": 8, "second": 16}
    assert multiple_of_four(Architecture("tiny_sep_16", 10)) == {"width": 16, "stem": 12, "second": 24}


def test_the_wider_network_gives_the_same_logits() -> None:
    architecture = Architecture("tiny_sep_12", 10, 1, 28, ODD)
    network = settle(architecture.build(), 1, 28)
    wider, weights = widen(architecture, network.state_dict(), multiple_of_four(architecture))
    padded = wider.build()
    padded.load_state_dict(weights)
    images = torch.from_numpy(pixels(8, 1, 28))
    with torch.no_grad():
        assert torch.allclose(padded.eval()(images), network(images), atol=1e-4)
    assert sum(p.numel() for p in padded.parameters()) > sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "args"), [("tiny_sep_12", {"width": 8}), ("tiny_sep_12", {"depth": 5})])
def test_what_is_not_wider_everywhere_is_refused(name: str, args: dict[str, int]) -> None:
    architecture = Architecture(name, 10, 1, 28, ODD)
    with pytest.raises(ModelError, match="is not a wider"):
        widen(architecture, architecture.build().state_dict(), args)


def test_other_networks_cannot_be_padded() -> None:
    with pytest.raises(ModelError, match="cannot be padded"):
        multiple_of_four(Architecture("tiny_cnn_8", 10))


def test_a_padded_run_becomes_a_bundle_that_verifies(tmp_path: Path) -> None:
    sample = load_data("sample")
    few: Dataset = sample.take(np.concatenate([np.arange(600), np.arange(6000, 6200)]))
    recipe = Recipe(
        model={"name": "tiny_sep_12", "args": ODD}, epochs=1, batch_size=64, threads=1, precision="fp32",
        channels_last=True, compile=False,
    )  # fmt: skip
    trained = train_and_wait(few, recipe, tmp_path / "run")
    bundle = export(trained.padded(), few, tmp_path / "bundle")
    found = verify_bundle(bundle)
    assert found.ok
    plain = verify_bundle(export(trained, few, tmp_path / "plain"))
    assert found.params > plain.params
