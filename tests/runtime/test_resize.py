"""Resizing is what docs/resize.md says, on every path that computes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.vectors import make_resize

from flyweight.runtime.preprocess import Preprocess, fit_image
from flyweight.runtime.resize import FILTERS, Pass, _by_numpy, _by_pillow, reach, resize, windows

VECTORS = Path(__file__).parent.parent / "vectors" / "resize.json"
CASES = json.loads(VECTORS.read_text("utf-8"))
RANDOM = np.random.default_rng(0)

Resizing = Callable[[np.ndarray, Pass, Pass], np.ndarray]


def pixels(case: dict[str, Any]) -> np.ndarray:
    shape = (case["height"], case["width"], case["channels"])
    return np.frombuffer(bytes.fromhex(case["pixels"]), np.uint8).reshape(shape)


def by_numpy(image: np.ndarray, across: Pass, down: Pass) -> np.ndarray:
    return _by_numpy(_by_numpy(image, across, 0).transpose(1, 0, 2), down, 0).transpose(1, 0, 2)


def by_pillow(image: np.ndarray, across: Pass, down: Pass) -> np.ndarray:
    return _by_pillow(image, across, down, 0)


def both(width: int, height: int, size: tuple[int, int], name: str) -> tuple[Pass, Pass]:
    return Pass(width, 0.0, float(width), size[0], name), Pass(height, 0.0, float(height), size[1], name)


def test_the_vectors_are_what_their_script_writes() -> None:
    assert VECTORS.read_text("utf-8") == make_resize.text(), "run: python tests/vectors/make_resize.py"


def test_weights_equal_the_vectors() -> None:
    for case in CASES["windows"]:
        found = windows(Pass(*(case[key] for key in ("size", "start", "stop", "out", "interpolation"))))
        assert found.first.tolist() == case["first"]
        for count, weights, expected in zip(found.counts, found.weights, case["weights"], strict=True):
            assert weights[:count].tolist() == expected
            assert not weights[count:].any()


def test_resized_pixels_equal_the_vectors() -> None:
    for case in CASES["resize"]:
        size = (case["out_width"], case["out_height"])
        found = resize(pixels(case), size, case["interpolation"], tuple(case["box"]))
        assert found.shape == (*size[::-1], case["channels"])
        assert found.tobytes().hex() == case["expected"]


def test_fitted_pixels_equal_the_vectors() -> None:
    for case in CASES["fit"]:
        asked = (case["image_size"], case["channels"], case["resize"], case["interpolation"], tuple(case["mean"]))
        assert fit_image(pixels(case), Preprocess(*asked)).tobytes().hex() == case["expected"]


def test_some_vectors_take_numpy_and_some_pillow() -> None:
    """Ties are common with box, where an edge falls on the middle of a pixel."""
    decided = {
        reach(Pass(case["width"], case["box"][0], case["box"][2], case["out_width"], case["interpolation"])).decided
        for case in CASES["resize"]
    }
    assert decided == {True, False}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pillow_and_numpy_give_the_same_bytes_where_pillow_is_used(name: str, channels: int) -> None:
    used = 0
    for _ in range(40):
        height, width = RANDOM.integers(1, 160, 2).tolist()
        size = tuple(RANDOM.integers(1, 70, 2).tolist())
        image = RANDOM.integers(0, 256, (height, width, channels), np.uint8)
        across, down = both(width, height, size, name)
        if reach(across).decided and reach(down).decided:
            used += 1
            np.testing.assert_array_equal(by_pillow(image, across, down), by_numpy(image, across, down))
    assert used > (2 if name == "box" else 35)


@pytest.mark.parametrize("name", FILTERS)
def test_rows_that_are_not_read_are_left_out_without_a_change(name: str) -> None:
    for _ in range(30):
        height, width, out = RANDOM.integers([60, 3, 1], [200, 20, 60]).tolist()
        image = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
        top, bottom = (height - width) / 2, (height + width) / 2
        across, down = Pass(width, 0.0, width, out, name), Pass(height, top, bottom, out, name)
        expected = by_numpy(image, across, down)
        np.testing.assert_array_equal(resize(image, (out, out), name, (0.0, top, float(width), bottom)), expected)


def test_one_pass_is_pillows_and_the_horizontal_one_comes_first() -> None:
    """Pillow 13 takes the vertical pass first where the height shrinks much more; our order is our own."""
    image = RANDOM.integers(0, 256, (91, 37, 3), np.uint8)
    picture = Image.fromarray(image)
    across = picture.resize((50, 91), Image.Resampling.BILINEAR)
    expected = np.asarray(across.resize((50, 13), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(image, (50, 13), "bilinear"), expected)
    down = picture.resize((37, 13), Image.Resampling.BILINEAR)
    assert (np.asarray(down.resize((50, 13), Image.Resampling.BILINEAR)) != expected).any()


def test_a_long_strip_is_resized_a_block_of_weights_at_a_time() -> None:
    strip = RANDOM.integers(0, 256, (1, 3_000_000, 1), np.uint8)
    found = resize(strip, (4, 1), "box")
    expected = strip.reshape(4, -1).astype(np.int64).mean(axis=1)
    assert np.abs(found[0, :, 0] - expected).max() <= 45  # weights of a millionth have two bits left of 22


def test_a_flat_picture_stays_flat_at_every_size() -> None:
    for name in FILTERS:
        for size in (1, 3, 64, 200):
            found = resize(np.full((50, 33, 3), 200, np.uint8), (size, size), name)
            assert (found == 200).all()
