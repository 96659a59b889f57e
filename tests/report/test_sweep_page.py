"""The page of a sweep: what is drawn, and that it fits and is silent in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.browser import Browser
from tests.report.test_page import EVIL, assert_fits

from flyweight.measure.batches import LeftOut
from flyweight.measure.latency import Quantile
from flyweight.measure.load import LoadRow, Trial
from flyweight.measure.table import BatchRow, CurveRow, EngineRow, Sweep
from flyweight.report.sweep import SECTIONS, build_sweep_report, draw_sweep, render_sweep
from flyweight.runtime.environment import environment
from flyweight.runtime.placement import Node

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FEW = Quantile(None, None, None, "slow: 30 samples in the time, so p50 only")


def at(ms: float) -> Quantile:
    return Quantile(ms, 0.9 * ms, 1.2 * ms)


def row(model: str, backend: str, threads: int, batch: int) -> BatchRow:
    ms = (1 + 0.2 * batch) / threads
    return BatchRow(
        model=model, precision="fp32", backend=backend, threads=threads, batch=batch, n=300, processes=3, p50=at(ms),
        p90=at(1.1 * ms) if batch <= 8 else FEW, p99=at(1.5 * ms) if batch <= 8 else FEW, device_p50=None,
        images_per_second=1000 * batch / ms, images_per_second_low=900 * batch / ms,
        images_per_second_high=1100 * batch / ms, memory_peak_bytes=None if batch == 512 else 10**7 + batch,
        memory_increment_bytes=None if batch == 512 else batch, steady=batch != 4, disturbed=batch == 2,
    )  # fmt: skip


def trial(rate: float) -> Trial:
    late = 0 if rate < 600 else 300
    return Trial(rate=rate, seed=0, n=1000, late=late, needed=459 if late == 0 else 34_000, unanswered=0,
                 holds=late == 0, p50=at(1.0), p99=at(rate / 100))  # fmt: skip


def load(scenario: str, model: str, **more: object) -> LoadRow:
    return LoadRow(scenario=scenario, model=model, backend="onnxruntime", threads=1, workers=2, batch=1, n=1000,
                   seconds=2.0, steady=True, p50=at(1.0), p90=at(2.0), p99=at(4.0), **more)  # type: ignore[arg-type]  # fmt: skip


def made_up(model: str = "fp32") -> Sweep:
    engine = {"model": model, "precision": "fp32", "backend": "onnxruntime", "asked": "CUDAExecutionProvider"}
    elsewhere = tuple(Node(f"node_{i}", "Cast", "CPUExecutionProvider") for i in range(20))
    said = {"reference": "golden", "n": 32, "top1_agreement": 0.97, "largest_difference": 0.13, "tolerance": 1e-3}
    return Sweep(
        name=model,
        quick=False,
        engines=(
            EngineRow(**engine, **said, nodes=60, elsewhere=elsewhere, within=False, how="no CUDA graph: Cast"),
            EngineRow(**(engine | {"backend": "openvino"}), **said, nodes=60, within=True),
            EngineRow(**engine, error=f"cannot load {model}"),
        ),
        batches=tuple(row(model, name, t, b) for name in ("onnxruntime", "openvino") for t in (1, 2) for b in SIZES),
        curves=(
            CurveRow(model=model, backend="onnxruntime", threads=1, best_images_per_second=5000, saturation_batch=64,
                     knee_batch=32),
            CurveRow(model=model, backend="openvino", threads=1, best_images_per_second=5000, saturation_batch=1,
                     knee_batch=None, reason="saturated from the smallest batch on"),
        ),
        loads=(
            load("single-stream", model, percentile=0.9, early_stopping_ms=2.1),
            load("multi-stream", model, percentile=0.99, reason="n too small: 100 queries, the rule needs 662"),
            load("server", model, percentile=0.99, bound_ms=5.0, queries_per_second=500.0,
                 trials=tuple(trial(100.0 * i) for i in range(1, 10))),
            load("offline", model, images_per_second=5000.0),
        ),
        left_out=(LeftOut(f"{model}, batch 512", "it needs about 400 s"),),
        notes=("3 threads were asked for",),
        conditions=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_sweep_fits_and_is_silent_and_asks_the_network_for_nothing(
    browser: Browser,
    tmp_path: Path,
    width: int,
    dark: bool,
) -> None:
    browser.open(build_sweep_report(made_up(), tmp_path).html, width, dark=dark)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.run("[...document.querySelectorAll('section')].map(s => s.id)") == list(SECTIONS)
    for plot in ("latency", "throughput", "memory", "server"):
        assert browser.run(f"document.querySelectorAll('#plot-{plot} svg.main-svg').length") > 0


def test_names_that_are_code_are_shown_and_not_run(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_sweep_report(made_up(" ".join(EVIL)), tmp_path).html, 1280)
    assert browser.problems() == []
    assert browser.run("window.hacked === undefined")


def test_every_curve_is_one_line_with_its_own_look() -> None:
    for name in ("plot-latency", "plot-throughput", "plot-memory"):
        lines = draw_sweep(made_up())[name]["data"]
        assert len(lines) == 4
        assert len({(line["line"]["color"], line["line"]["dash"]) for line in lines}) == 4
        assert len({line["name"] for line in lines}) == 4


def test_whiskers_reach_to_the_ends_of_the_interval() -> None:
    line = draw_sweep(made_up())["plot-latency"]["data"][0]
    assert line["y"][0] == pytest.approx(1.2)
    assert line["error_y"]["array"][0] == pytest.approx(0.2 * 1.2)
    assert line["error_y"]["arrayminus"][0] == pytest.approx(0.1 * 1.2)


def test_what_was_not_measured_is_no_point() -> None:
    line = draw_sweep(made_up())["plot-memory"]["data"][0]
    assert line["x"] == list(SIZES[:-1])


def test_rates_that_held_the_bound_are_full_and_others_hollow() -> None:
    figure = draw_sweep(made_up())["plot-server"]
    (line,) = figure["data"]
    assert line["marker"]["symbol"] == ["circle"] * 5 + ["circle-open"] * 4
    assert figure["layout"]["shapes"][0]["y0"] == 5.0


def test_an_answer_outside_the_tolerance_is_said_on_the_page() -> None:
    page = render_sweep(made_up())
    assert "✗ outside the tolerance" in page
    assert "20 of 60 not on CUDAExecutionProvider" in page
    assert "does not run: cannot load" in page


def test_a_sweep_without_a_table_has_no_section_of_it() -> None:
    page = render_sweep(made_up().model_copy(update={"batches": (), "curves": (), "loads": (), "left_out": ()}))
    assert [name for name in SECTIONS if f'<section id="{name}">' in page] == ["engines", "conditions"]
