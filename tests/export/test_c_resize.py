"""Resizing in C gives the bytes of the shared vectors."""

from __future__ import annotations

import ctypes
import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VECTORS = json.loads((Path(__file__).parent.parent / "vectors/resize.json").read_text("utf-8"))
SOURCE = Path(str(files("flyweight.export.c"))) / "templates/resize.c"
FILTERS = ["box", "bilinear", "bicubic"]
WAYS = ["crop", "stretch", "pad"]
TAPS = 256


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    made = tmp_path_factory.mktemp("resize") / "resize.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", f"-DFLYWEIGHT_TAPS={TAPS}", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(made)], check=True)
    return ctypes.CDLL(str(made))


def test_windows_in_c_equal_the_vectors(library: ctypes.CDLL) -> None:
    for case in VECTORS["windows"]:
        first, weights = ctypes.c_int(), (ctypes.c_int32 * TAPS)()
        ends = (ctypes.c_double(case["start"]), ctypes.c_double(case["stop"]))
        for place in range(case["out"]):
            kernel = FILTERS.index(case["interpolation"])
            taps = library.flyweight_window(
                case["size"], *ends, case["out"], kernel, place, ctypes.byref(first), weights
            )
            assert (first.value, weights[:taps]) == (case["first"][place], case["weights"][place])


def test_resized_pixels_in_c_equal_the_vectors(library: ctypes.CDLL) -> None:
    for case in VECTORS["resize"]:
        picture, work = picture_of(case), np.empty(1 << 16, np.uint8)
        out = np.zeros((case["out_height"], case["out_width"], case["channels"]), np.uint8)
        failed = library.flyweight_resize(
            *picture, FILTERS.index(case["interpolation"]), *map(ctypes.c_double, case["box"]), case["out_width"],
            case["out_height"], 0, pointer(work), pointer(out),
        )  # fmt: skip
        assert failed == 0
        assert out.tobytes().hex() == case["expected"]


def test_fitted_pixels_in_c_equal_the_vectors(library: ctypes.CDLL) -> None:
    for case in VECTORS["fit"]:
        picture, work, side = picture_of(case), np.empty(1 << 16, np.uint8), case["image_size"]
        fill = np.floor(np.array(case["mean"]) * 255 + 0.5).astype(np.uint8)
        out = np.zeros((side, side, case["channels"]), np.uint8)
        kernel = FILTERS.index(case["interpolation"])
        failed = library.flyweight_fit(
            *picture, WAYS.index(case["resize"]), kernel, pointer(fill), side, pointer(work), pointer(out)
        )
        assert failed == 0
        assert out.tobytes().hex() == case["expected"]


def test_too_large_a_picture_is_refused_and_not_cut(library: ctypes.CDLL) -> None:
    picture, work, out = np.zeros((1, 4000, 1), np.uint8), np.zeros(64, np.uint8), np.zeros(16, np.uint8)
    box = map(ctypes.c_double, (0, 0, 4000, 1))
    assert library.flyweight_resize(pointer(picture), 1, 4000, 1, 1, *box, 4, 1, 0, pointer(work), pointer(out)) == -1


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def picture_of(case: dict[str, Any]) -> tuple[Any, ...]:
    """Return what C takes first: pixels, height, width, channels."""
    buffer = ctypes.create_string_buffer(bytes.fromhex(case["pixels"]))
    return buffer, case["height"], case["width"], case["channels"]
