"""What the page computes in JavaScript, in a real browser, against Python and shared vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.browser import Browser

from flyweight.measure.statistics import quantile_interval
from flyweight.runtime.calibration import softmax
from flyweight.web.build import PAGE

VECTORS = json.loads((Path(__file__).parent.parent / "vectors/resize.json").read_text("utf-8"))
UNPACK = """
const unhex = (text) => Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const picture = (row) => ({ ...row, data: unhex(row.pixels) });
"""


@pytest.fixture(scope="module")
def scripts(browser: Browser) -> Browser:
    """The browser with the scripts that need no page."""
    browser.call("Page.navigate", url="about:blank")
    names = ("resize.js", "picture.js", "quantiles.js", "network.js", "result.js")
    browser.run("\n".join((PAGE / name).read_text("utf-8") for name in names) + UNPACK + "; 1")
    return browser


def call(browser: Browser, function: str, rows: list[dict[str, Any]]) -> list[Any]:
    return browser.run(f"({json.dumps(rows)}).map({function})")


def test_windows_have_the_weights_of_the_shared_vectors(scripts: Browser) -> None:
    function = """(row) => windows(row.size, row.start, row.stop, row.out, row.interpolation)
        .map((w) => [w.first, [...w.weights]])"""
    found = call(scripts, function, VECTORS["windows"])
    wanted = [
        [[first, weights] for first, weights in zip(row["first"], row["weights"], strict=True)]
        for row in VECTORS["windows"]
    ]
    assert found == wanted


def test_resize_gives_the_bytes_of_the_shared_vectors(scripts: Browser) -> None:
    function = """(row) => hex(resize(picture(row), row.out_width, row.out_height, row.interpolation, row.box).data)"""
    assert call(scripts, function, VECTORS["resize"]) == [row["expected"] for row in VECTORS["resize"]]


def test_fitting_gives_the_bytes_of_the_shared_vectors(scripts: Browser) -> None:
    function = "(row) => hex(fitImage(picture(row), row).data)"
    assert call(scripts, function, VECTORS["fit"]) == [row["expected"] for row in VECTORS["fit"]]


@pytest.mark.parametrize("n", [2, 5, 6, 28, 29, 298, 299, 1000])
def test_quantiles_have_the_intervals_of_the_measurements_of_python(scripts: Browser, n: int) -> None:
    samples = np.random.default_rng(n).lognormal(size=n).tolist()
    for q in (0.5, 0.9, 0.99):
        found = scripts.run(f"quantile({json.dumps(samples)}, {q})")
        wanted = quantile_interval(samples, q)
        assert found == (wanted and {"value": wanted.value, "low": wanted.low, "high": wanted.high})


def test_confidence_is_the_softmax_at_the_bundles_temperature(scripts: Browser) -> None:
    logits = np.random.default_rng(0).normal(scale=9, size=17)
    found = scripts.run(f"softmax({json.dumps(logits.tolist())}, 1.7)")
    assert found == pytest.approx(softmax(logits[None], 1.7)[0].tolist(), rel=1e-12)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 1000])
def test_the_hash_is_sha_256(scripts: Browser, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    assert scripts.run(f"sha256(Uint8Array.from({list(content)}))") == hashlib.sha256(content).hexdigest()


def test_pixels_on_white_and_in_gray_are_those_of_pillow(scripts: Browser) -> None:
    from flyweight.runtime.preprocess import decode

    alpha = np.random.default_rng(1).integers(0, 256, (32, 32, 4), np.uint8)
    for channels in (1, 3):
        given = f"Uint8Array.from({alpha.ravel().tolist()})"
        filled = f"(out => {{ fill(out, 0, {given}, {channels}); return [...out]; }})"
        assert (
            scripts.run(f"{filled}(new Uint8Array({32 * 32 * channels}))") == decode(alpha, channels).ravel().tolist()
        )
