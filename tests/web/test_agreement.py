"""The page and the command on many real photos: JPEG decoders differ by a level here and there, classes must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.browser import Browser

from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Predictor
from flyweight.web import render
from flyweight.web.ort import OrtWeb

pytestmark = pytest.mark.slow
BUNDLES = Path(__file__).parent.parent.parent / "bundles"
COUNT = 500


@pytest.mark.parametrize("name", ["tiny-cifar10", "cifar10-1mb"])
def test_top_1_agrees_with_the_command_on_99_5_percent_of_500_jpeg_files(
    browser: Browser, runtime: OrtWeb, real_data: Path, tmp_path: Path, name: str
) -> None:
    files = sorted((real_data / "tiny-imagenet-200/val").rglob("*.JPEG"))[:COUNT]
    assert len(files) == COUNT
    bundle = Bundle.open(BUNDLES / name)
    page = tmp_path / "index.html"
    page.write_text(render(bundle, bundle.variant(), runtime), "utf-8")
    browser.open(page, 1280)
    browser.choose("#file", files)
    browser.wait(f"flyweight.results.length === {COUNT}", 500)
    found = browser.run("flyweight.results.map(({source, top}) => [source, top[0].class, top[0].confidence])")
    wanted = list(Predictor(bundle).predict(files))
    assert [source for source, _, _ in found] == [file.name for file in files]
    same = sum(label == want.top[0][0] for (_, label, _), want in zip(found, wanted, strict=True))
    print(f"{name}: {same} of {COUNT} the same")
    assert same >= 0.995 * COUNT
    assert browser.problems() == []
