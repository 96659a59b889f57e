"""The page of a bundle in a real browser, opened from the disk: what it answers, and that it asks no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.report.browser import Browser
from tests.runtime.tiny_bundle import CLASSES, picture, write_bundle

from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Predictor
from flyweight.runtime.preprocess import ORIENTATION
from flyweight.web import render
from flyweight.web.ort import OrtWeb

ANSWERS = "flyweight.results.map(({source, top, rejected, error}) => ({source, top, rejected, error}))"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One that gives no answer below a confidence of 0.6."""
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundle") / "thirds", reject_threshold=0.6))


@pytest.fixture(scope="module")
def file(bundle: Bundle, runtime: OrtWeb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render(bundle, bundle.variant(), runtime), "utf-8")
    return path


@pytest.fixture(scope="module")
def page(browser: Browser, file: Path) -> Browser:
    """The page, opened from the disk."""
    browser.open(file, 1280)
    return browser


def answers(page: Browser, files: list[Path]) -> list[dict[str, Any]]:
    """Choose files and return what the page says of them, in their order."""
    page.run("flyweight.results.length = 0")
    page.choose("#file", files)
    page.wait(f"flyweight.results.length === {len(files)}")
    return page.run(ANSWERS)


def assert_as_the_command_says(page: Browser, bundle: Bundle, files: list[Path]) -> None:
    wanted = [found.to_json() for found in Predictor(bundle).predict(files)]
    for found, want in zip(answers(page, files), wanted, strict=True):
        assert [row["class"] for row in found["top"]] == [row["class"] for row in want["top"]]
        assert [row["confidence"] for row in found["top"]] == pytest.approx(
            [row["confidence"] for row in want["top"]], abs=1e-6
        )
        assert found["rejected"] == want["rejected"]


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_a_dropped_picture_gets_the_class_that_the_command_gives(page: Browser, bundle: Bundle, tmp_path: Path) -> None:
    path = saved(Image.fromarray(picture(2, 90, seed=5)), tmp_path / "right.png")
    page.run("flyweight.results.length = 0")
    page.drop([path], 400, 260)
    page.wait("flyweight.results.length === 1")
    page.wait("!document.getElementById('answer').hidden")
    assert page.run("document.getElementById('verdict').firstChild.textContent") == "right"
    wanted = next(iter(Predictor(bundle).predict([path])))
    assert page.run("flyweight.results[0].top[0].confidence") == pytest.approx(wanted.top[0][1], abs=1e-6)


@pytest.mark.parametrize("size", [(12, 12), (48, 48), (301, 77), (5, 9)], ids=str)
def test_png_of_any_size_gets_the_commands_answer(
    page: Browser, bundle: Bundle, tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    assert_as_the_command_says(page, bundle, [saved(Image.fromarray(pixels), tmp_path / "a.png")])


def test_gray_palette_and_half_transparent_pictures_get_the_commands_answer(
    page: Browser, bundle: Bundle, tmp_path: Path
) -> None:
    colour = Image.fromarray(picture(1, 60, seed=3))
    solid = colour.convert("RGBA")
    solid.putalpha(Image.fromarray(np.where(np.arange(60) < 30, 0, 255).astype(np.uint8)[None].repeat(60, 0)))
    files = [
        saved(colour.convert("L"), tmp_path / "gray.png"),
        saved(colour.convert("P"), tmp_path / "palette.png"),
        saved(solid, tmp_path / "clear.png"),
        saved(colour, tmp_path / "a.bmp"),
        saved(colour, tmp_path / "a.webp", lossless=True),
    ]
    assert_as_the_command_says(page, bundle, files)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_by_exif_as_the_command_turns_them(
    page: Browser, bundle: Bundle, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(picture(0, 96, seed=orientation)[:64])
    path = saved(image, tmp_path / "turned.jpg", quality=95, subsampling=0, exif=exif)
    wanted = next(iter(Predictor(bundle).predict([path])))
    [found] = answers(page, [path])
    assert found["top"][0]["class"] == wanted.top[0][0]
    assert found["top"][0]["confidence"] == pytest.approx(wanted.top[0][1], abs=0.01)


def test_a_picture_like_no_class_gets_no_answer(page: Browser, tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (30, 30), "gray"), tmp_path / "flat.png")
    [found] = answers(page, [path])
    assert found["rejected"]
    page.wait("document.getElementById('verdict').firstChild.textContent === 'No answer'")
    assert "60.0 %" in page.run("document.getElementById('verdict').textContent")


def test_what_is_no_picture_is_said_in_three_lines_and_the_rest_is_classified(page: Browser, tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.png", tmp_path / "empty.jpg"
    good = saved(Image.fromarray(picture(0, 40)), tmp_path / "good.png")
    broken.write_bytes(good.read_bytes()[:60])
    empty.write_bytes(b"")
    found = answers(page, [broken, good, empty])
    assert [bool(row.get("error")) for row in found] == [True, False, True]
    assert page.run("[...document.querySelectorAll('#problem p')].length") == 3
    assert found[1]["top"][0]["class"] == "left"
    page.wait("document.getElementById('source').textContent.startsWith('good.png')")


def test_a_golden_image_can_be_tried(page: Browser) -> None:
    page.run("document.querySelectorAll('#sample-row button')[1].click()")
    page.wait("document.getElementById('source').textContent === 'golden image 2'")
    assert page.run("document.getElementById('verdict').firstChild.textContent") == CLASSES[1]


def test_the_golden_vectors_agree(page: Browser) -> None:
    found = page.run("network.agreement()")
    assert found["ok"]
    assert (found["n"], found["same"]) == (32, 32)


def test_the_measurement_is_a_result_that_device_add_reads(page: Browser, bundle: Bundle, tmp_path: Path) -> None:
    result = pytest.importorskip("flyweight.measure.result")
    page.run("Object.assign(EFFORT, {samples: 12, enough: 6, softSeconds: 0.05, hardSeconds: 1, warmupSeconds: 0.05})")
    page.run("document.getElementById('measure').click()")
    measured = page.wait("flyweight.result", 120)
    (tmp_path / "result.json").write_text(json.dumps(measured))
    read = result.read_result(tmp_path / "result.json")
    assert read.made_by == "web"
    assert read.bundle.name == bundle.name
    [model] = read.models
    assert model.golden.ok
    assert model.size_bytes == bundle.variant().size_bytes
    assert {name: len(runs) for name, runs in model.clocks.items()} == {"model": 5, "preprocess_model": 5, "encoded": 5}
    assert model.latency().p50_ms > 0


def test_the_page_is_silent_and_asks_the_network_for_nothing(page: Browser) -> None:
    assert page.problems() == []
    assert page.requests() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_phone(browser: Browser, file: Path, tmp_path: Path, dark: bool) -> None:
    browser.visit(file.as_uri(), 390, dark=dark, phone=True)
    answers(browser, [saved(Image.fromarray(picture(1, 200)), tmp_path / ("x" * 80 + ".png"))])
    browser.wait("!document.getElementById('answer').hidden")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    wide = "[...document.querySelectorAll('section, img, canvas, h1, .button')].filter("
    wide += "e => !e.closest('.samples') && e.getBoundingClientRect().right > 390.5).map(e => e.className + e.id)"
    assert browser.run(wide) == []
    shown = (
        "['camera', 'answer', 'problem', 'download'].map(id => getComputedStyle(document.getElementById(id)).display)"
    )
    assert [display != "none" for display in browser.run(shown)] == [True, True, False, False]


def test_names_from_the_bundle_are_text_and_no_markup(browser: Browser, runtime: OrtWeb, tmp_path: Path) -> None:
    evil = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    named = Bundle.open(write_bundle(tmp_path / "b", name=evil, classes=[evil, "{{files}}", "c"]))
    path = tmp_path / "index.html"
    path.write_text(render(named, named.variant(), runtime), "utf-8")
    browser.open(path, 800)
    assert browser.run("window.hacked") is None
    assert browser.run("document.getElementById('name').textContent") == evil
