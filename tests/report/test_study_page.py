"""The page of a study: complete, silent, offline, and within the width of a phone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tests.report.browser import Browser
from tests.report.test_page import assert_fits
from tests.studies.small import made_up, place_with

from flyweight.files import write_json
from flyweight.measure.convergence import convergence
from flyweight.report.isolation import by_question
from flyweight.report.study import SECTIONS, StudyFacts, build_study_report
from flyweight.runtime.environment import environment
from flyweight.studies.analyse import analyse
from flyweight.studies.deployed import DEPLOYED, LAYOUT
from flyweight.studies.stability import stability
from flyweight.studies.study import Trial, load_study, trials
from flyweight.studies.trial import RESULT, Place
from flyweight.train.recipe import Recipe


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
        place.out / DEPLOYED,
        {
            "layout": LAYOUT,
            "asked": {},
            "here": {"cpu": "made up", "threads": 1},
            "costs": found,
            "conditions": environment(),
        },
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
    browser: Browser,
    comparison_page: Path,
    width: int,
) -> None:
    browser.open(comparison_page, width)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []
    sections = browser.run("[...document.querySelectorAll('section')].map(s => s.id)")
    assert sections == ["networks", "devices", "tradeoffs", "pairs", "arms", "cost", "conditions"]
    assert "not trained enough" in browser.run("document.getElementById('networks').textContent")
    for cost in ("latency", "latency-openvino", "size", "memory", "macs"):
        assert browser.run(f"document.querySelectorAll('#plot-{cost}-sample svg.main-svg').length") > 0


@pytest.fixture(scope="module")
def map_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of two optimizers on which everything that a cell can be is somewhere."""
    folder = tmp_path_factory.mktemp("map")
    study = stability("sample", Recipe(), lrs=[0.01, 0.1, 1], batch_sizes=[32, 128], optims=["sgd", "adamw"], seeds=2)
    place, order = Place(folder, folder), trials(study, study.scales["own"])
    for number, trial in enumerate(order):
        result = {"dataset": "sample", "arm": trial.arm, "seed": trial.seed, "classes": 10, "train_seconds": 1.0}
        if "lr1-" in trial.arm and (trial.seed or "sgd" in trial.arm):
            result |= {"diverged": {"epoch": 2, "why": "the training loss rose"}}
        else:
            history = [{"epoch": epoch, "val_accuracy": 0.1 * epoch + 0.01 * (number % 7)} for epoch in range(1, 9)]
            result |= {"accuracy": history[-1]["val_accuracy"] * (0.5 if "0.01" in trial.arm else 1.0), "n": 600}
            result |= {"convergence": asdict(convergence(history)), "train_macs": 1e9, "params": 10, "macs": 20}
            result |= {"val_accuracy": 0.8, "train_images": 5400}
        write_json(place.of(trial) / RESULT, result)
    return build_study_report(analyse(study, "own", order, place), folder).html


def test_the_isolation_plot_joins_both_sides_of_each_seed(page: Path) -> None:
    facts = StudyFacts.model_validate_json(page.with_name("report.json").read_text())
    plot = by_question(facts)
    assert plot is not None
    between, without, with_it = plot["data"]
    question, row = facts.verdicts[-1], slice(0, 3)  # the last is drawn first, at the bottom
    arms = {arm.arm: arm for data in facts.datasets if data.name == question.dataset for arm in data.arms}
    assert [value / 100 for value in without["x"][row]] == pytest.approx(arms[question.second].per_seed)
    assert [value / 100 for value in with_it["x"][row]] == pytest.approx(arms[question.first].per_seed)
    assert without["y"] == with_it["y"]
    assert len(between["x"]) == 3 * len(without["x"])


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_map_draws_every_optimizer_and_fits(
    browser: Browser,
    map_page: Path,
    width: int,
) -> None:
    browser.open(map_page, width)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []
    sections = browser.run("[...document.querySelectorAll('section')].map(s => s.id)")
    assert sections == ["maps", "arms", "convergence", "cost", "diverged", "conditions"]
    for optimizer in ("sgd", "adamw"):
        assert browser.run(f"document.querySelectorAll('#plot-map-sample-{optimizer} svg.main-svg').length") > 0
    outcomes = browser.run("[...document.querySelectorAll('#maps td.name')].map(c => c.textContent)")
    assert {"converged", "slow", "diverged"} <= set(outcomes)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_study_fits_and_is_silent_and_asks_the_network_for_nothing(
    browser: Browser,
    page: Path,
    width: int,
    dark: bool,
) -> None:
    browser.open(page, width, dark=dark)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []


def test_the_page_of_a_study_has_every_section_every_plot_and_what_is_missing(
    browser: Browser,
    page: Path,
) -> None:
    browser.open(page, 1280)
    headings = browser.run(
        "[...document.querySelectorAll('section')].map(s => [s.id, s.querySelector('h2').textContent])"
    )
    of_others = {"networks", "devices", "tradeoffs", "pairs", "maps", "convergence", "rankings", "diverged"}
    assert dict(headings) == {name: title for name, title in SECTIONS.items() if name not in of_others}
    for plot in ("plot-answers", "plot-isolation", "plot-arms-mnist"):
        assert browser.run(f"document.querySelectorAll('#{plot} svg.main-svg').length") > 0, plot
    assert "cifar10/ours/seed0" in browser.run("document.getElementById('missing').textContent")
