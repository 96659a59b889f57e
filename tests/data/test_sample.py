"""The embedded sample: what it says it is, and what Fashion-MNIST says."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from flyweight.data.sample.build import build
from flyweight.data.sources import load_data
from flyweight.data.split import split


def test_each_class_has_600_training_and_100_test_images() -> None:
    dataset = load_data("sample")
    for part, count in (("train", 600), ("test", 100)):
        assert np.bincount(dataset.labels[dataset.parts == part]).tolist() == [count] * 10


def test_the_images_are_28_px_gray_and_no_two_are_equal() -> None:
    dataset = load_data("sample")
    assert dataset.images.read(0).shape == (28, 28, 1)  # type: ignore[union-attr]
    assert len(np.unique(dataset.hashes())) == 7000


def test_the_official_test_images_are_the_test_part_and_a_tenth_of_the_rest_validates() -> None:
    dataset = load_data("sample")
    parts = split(dataset)
    assert np.array_equal(parts.test, np.flatnonzero(dataset.parts == "test"))
    assert 500 < len(parts.val) < 700


def test_licence_and_credit_ship_beside_the_data() -> None:
    text = resources.files("flyweight.data.sample").joinpath("LICENSE").read_text("utf-8")
    assert "Zalando SE" in text
    assert "MIT" in text


def test_the_script_builds_the_very_arrays_that_ship(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "fashion-mnist"
    if not source.is_dir():
        pytest.skip("FLYWEIGHT_DATA has no fashion-mnist")
    (tmp_path / "built.npz").write_bytes(build(source))
    shipped = Path(str(resources.files("flyweight.data.sample").joinpath("fashion.npz")))
    with np.load(tmp_path / "built.npz") as built, np.load(shipped) as ours:
        assert sorted(built.files) == sorted(ours.files)
        assert all(np.array_equal(built[name], ours[name]) for name in ours.files)
