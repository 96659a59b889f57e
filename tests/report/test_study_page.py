"""The page of a study: complete, silent, offline, and within the width of a phone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.report.browser import Browser
from tests.report.test_page import assert_fits, browser  # noqa: F401 - a fixture
from tests.studies.small import made_up, place_with

from flyweight.files import write_json
from flyweight.report.study import SECTIONS, build_study_report
from flyweight.runtime.environment import environment
from flyweight.studies.analyse import analyse
from flyweight.studies.deployed import DEPLOYED, LAYOUT
from flyweight.studies.study import Trial, load_study, trials


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study, random = load_study("tiny_cnn"), np.random.default_rng(0)
    scores = {arm: random.random((3, 1000)) < 0.85 + 0.01 * index for index, arm in enumerate(study.arms)}
    place, order = place_with(folder, scores)
    facts = analyse(study, "cpu", [*order, Trial(0, "cifar10", "ours")], place)
    return build_study_report(facts, folder).html


@pytest.fixture(scope="module")
def comparison_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    scores = {"tiny_cnn_8": [0.9, 0.9, 0.9], "tiny_cnn_6": [0.8, 0.81, 0.8], "tiny_cnn_4": [0.4, 0.4, 0.4]}
    study, place = made_up(folder, scores)
    found = {f"sample/{arm}": timed(number + 1) for number, arm in enumerate(scores)}
    write_json(
        place.out / DEPLOYED, {"layout": LAYOUT, "asked": {}, "here": {}, "costs": found, "conditions": environment()}
    )
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    return build_study_report(facts, folder).html


def timed(ms: float) -> list[dict[str, object]]:
    """Return what `measure_deployed` says of a file that takes so long, and half as long on the other backend."""
    return [
        {
            "backend": backend,
            "threads": 1,
            "latency": {
                **{name: {"ms": ms / share, "low_ms": ms / share, "high_ms": ms / share} for name in ("p50", "p90")},
                "disturbed": False,
            },
            "memory_bytes": 40_000_000,
            "memory_increment_bytes": 2_000_000,
        }
        for share, backend in enumerate(("onnxruntime", "openvino"), 1)
    ]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_comparison_ranks_draws_trade_offs_and_fits(
    browser: Browser,  # noqa: F811
    comparison_page: Path,
    width: int,
) -> None:
    browser.open(comparison_page, width)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []
    sections = browser.run("[...document.querySelectorAll('section')].map(s => s.id)")
    assert sections == ["networks", "tradeoffs", "pairs", "arms", "conditions"]
    assert "not trained enough" in browser.run("document.getElementById('networks').textContent")
    for cost in ("latency", "latency-openvino", "size", "memory", "macs"):
        assert browser.run(f"document.querySelectorAll('#plot-{cost}-sample svg.main-svg').length") > 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_study_fits_and_is_silent_and_asks_the_network_for_nothing(
    browser: Browser,  # noqa: F811
    page: Path,
    width: int,
    dark: bool,
) -> None:
    browser.open(page, width, dark=dark)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []


def test_the_page_of_a_study_has_every_section_every_plot_and_what_is_missing(
    browser: Browser,  # noqa: F811
    page: Path,
) -> None:
    browser.open(page, 1280)
    headings = browser.run(
        "[...document.querySelectorAll('section')].map(s => [s.id, s.querySelector('h2').textContent])"
    )
    of_comparisons = {"networks", "tradeoffs", "pairs"}
    assert dict(headings) == {name: title for name, title in SECTIONS.items() if name not in of_comparisons}
    for plot in ("plot-answers", "plot-arms-mnist"):
        assert browser.run(f"document.querySelectorAll('#{plot} svg.main-svg').length") > 0, plot
    assert "cifar10/ours/seed0" in browser.run("document.getElementById('missing').textContent")
