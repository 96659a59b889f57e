"""The runtime that `fit` ships on: every way is written and timed; only what is faster and as accurate is chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from flyweight.cli import run
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.fit import runtimes
from flyweight.fit.contest import Outcome
from flyweight.fit.pick import Finalist, Pick, Way
from flyweight.fit.runtimes import choose_runtime, known_runtimes
from flyweight.measure.accuracy import score
from flyweight.measure.budget import Budget
from flyweight.measure.latency import LatencyResult
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.memory import Memory
from flyweight.runtime.predict import Predictor
from flyweight.runtime.timing import Spec

BUNDLE = Path(__file__).parents[2] / "bundles" / "tiny-fashion-mnist"
SLOW = 1.0  # ms


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_data("sample")


@pytest.fixture
def pick() -> Pick:
    bundle = Bundle.open(BUNDLE)
    values = {"latency_p50": SLOW, "latency_p90": SLOW, "size": float(bundle.variant("fp32").size_bytes)}
    winner = Finalist(
        outcome=cast(Outcome, None),  # what is run does not depend on how it was trained
        bundle=bundle if bundle.default == "fp32" else float_first(bundle),
        validation=score(np.eye(10, dtype=np.float32), np.arange(10), bundle.classes, 1.0),
        right=np.ones(10, bool),
        values=cast(dict[str, float | None], values),
        latency={},
        checks=(),
    )
    return Pick(winner, (winner,), ("It is the best.",), {})


def float_first(bundle: Bundle) -> Bundle:
    return replace(bundle, default="fp32")


def clock(monkeypatch: pytest.MonkeyPatch, times: Mapping[str, float], cpu_share: float = 1.0) -> list[list[str]]:
    """Give every way the time that `times` has for its variant (SLOW without); return what is timed."""
    asked: list[list[str]] = []

    def timed(specs: Mapping[str, Spec], images: NDArray[np.uint8], *, quick: bool, **_: Any) -> dict[str, Any]:
        asked.append(list(specs))
        return {name: latency(name, spec, times, cpu_share) for name, spec in specs.items()}

    monkeypatch.setattr(runtimes, "time_all", timed)
    return asked


def latency(name: str, spec: Spec, times: Mapping[str, float], cpu_share: float) -> LatencyResult:
    ms = times.get(name, times.get(name.split(" x")[0], SLOW))
    samples = tuple(tuple(ms * (1 + 0.0001 * (i + j)) for j in range(60)) for i in range(5))
    return LatencyResult(name, "model", spec.backend, spec.threads, samples, True, 30, 0.02, cpu_share=cpu_share)


def chosen(
    pick: Pick, names: tuple[str, ...], sample: Dataset, folder: Path, budget: str = "size<1MB", threads: int = 1
) -> tuple[Pick, list[str]]:
    said = []
    steps = choose_runtime(pick, names, sample, Budget.parse(budget), folder, threads=threads)
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return end.value, said


def by_name(found: Pick, variant: str, threads: int | None = 1) -> Way:
    return next(way for way in found.ways if (way.variant, way.threads) == (variant, threads))


def test_a_faster_runtime_of_the_same_function_ships_and_its_bundle_says_so(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = clock(monkeypatch, {"litert-fp32": 0.5 * SLOW})
    found, said = chosen(pick, ("litert",), sample, tmp_path)
    shipped = found.winner.bundle
    assert shipped.variant().backend == "litert"
    assert shipped.variants["fp32"].backend == "onnxruntime"  # the file it was made from stays
    assert found.winner.values["latency_p50"] == pytest.approx(0.5 * SLOW, rel=0.01)
    assert found.winner.values["size"] == shipped.variant().size_bytes
    assert found.winner.validation.n > 500
    assert asked == [["fp32 x1", "litert-fp32 x1", "litert-int8 x1"], ["fp32 x1", "litert-fp32 x1"]]
    assert by_name(found, "litert-fp32").ships
    assert by_name(found, "litert-int8").because == "not among the quickest"
    assert "fp32 on litert with 1 thread, because it computes the same function, and is faster" in said[-1]
    golden, _ = shipped.golden(shipped.variant())
    own = Predictor(pick.winner.bundle, variant="fp32").logits(golden)
    assert np.allclose(Predictor(shipped).logits(golden), own, atol=1e-3)


def test_a_lower_precision_must_be_as_accurate_however_fast_it_is(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, {"litert-int8": 0.1 * SLOW})
    found, said = chosen(pick, ("litert",), sample, tmp_path)
    way = by_name(found, "litert-int8")
    assert way.change is not None
    assert way.change[1] is not None
    assert way.ships == (way.change[1] > -0.01)
    assert (found.winner is pick.winner) is not way.ships
    assert way.because in said[-1] if way.ships else "No other way" in said[-1]


def test_int8_of_another_tool_is_no_same_function_as_an_int8_pick(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = replace(pick, winner=replace(pick.winner, bundle=replace(pick.winner.bundle, default="int8")))
    clock(monkeypatch, {"litert-int8": 0.1 * SLOW})
    found, _ = chosen(int8, ("litert",), sample, tmp_path)
    assert by_name(found, "litert-int8").change is not None  # a trial was held


def test_the_fastest_that_keeps_the_budget_ships_and_not_only_the_fastest(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, {"openvino-fp32": 0.4 * SLOW, "litert-fp32": 0.5 * SLOW})
    needs = {"openvino": 90, "litert": 40}
    monkeypatch.setattr(
        runtimes, "peak_memory", lambda file, *, threads, backend: Memory(needs[backend] * 10**6, 0, 0, 1)
    )
    found, said = chosen(pick, ("openvino", "litert"), sample, tmp_path, budget="memory<50MB")
    assert "breaks the limit of memory" in said[-2]
    assert found.winner.bundle.variant().name == "litert-fp32"
    assert found.winner.values["memory"] == 40e6


def test_nothing_is_chosen_on_a_machine_that_others_use(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, {"litert-fp32": 0.5 * SLOW}, cpu_share=0.6)
    found, _ = chosen(pick, ("litert",), sample, tmp_path)
    assert found.winner is pick.winner
    assert "other programs had the processor" in by_name(found, "litert-fp32").because


def test_more_threads_are_a_way_of_their_own(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, {"fp32 x1": 0.5 * SLOW})  # so small a network is faster alone
    found, _ = chosen(pick, ("litert",), sample, tmp_path, threads=2)
    assert {(way.variant, way.threads) for way in found.ways} >= {("fp32", 1), ("fp32", 2), ("litert-fp32", 2)}
    assert found.threads == 1
    shipped = found.winner.bundle.variant()
    assert (shipped.name, shipped.threads) == ("fp32", 1)


def test_a_file_over_the_limit_of_size_is_not_timed(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = clock(monkeypatch, {})
    found, _ = chosen(pick, ("openvino",), sample, tmp_path, budget="size<100KB")
    assert asked == []
    assert len(found.ways) == 3
    assert all("bytes are over the limit" in way.because for way in found.ways)
    assert found.winner is pick.winner


def test_what_breaks_a_limit_once_it_is_measured_does_not_ship(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, {"litert-fp32": 0.5 * SLOW})
    found, said = chosen(pick, ("litert",), sample, tmp_path, budget="memory<1MB")
    assert found.winner is pick.winner
    assert "breaks the limit of memory" in said[-1]


def test_a_runtime_that_is_not_installed_is_said(
    pick: Pick, sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "known_runtimes", lambda: ("onnxruntime",))
    found, _ = chosen(pick, ("litert",), sample, tmp_path)
    assert {way.because for way in found.ways} == {"litert is not installed"}


def test_for_another_device_nothing_is_timed_here(pick: Pick, sample: Dataset, tmp_path: Path) -> None:
    found, said = chosen(pick, ("litert",), sample, tmp_path, budget="latency_p90<5ms@pi4")
    assert found.winner is pick.winner
    assert "the budget is for pi4" in said[0]


def test_all_that_are_installed_are_tried_and_none_is_an_answer() -> None:
    assert set(known_runtimes()) == {"onnxruntime", "openvino", "litert"}


def test_an_unknown_runtime_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "sample", "--runtimes", "tensorrt", "--out", str(tmp_path / "out")]) == 1
    assert "not timed on 'tensorrt'" in capsys.readouterr().err


def test_fit_times_the_ways_and_the_report_shows_them(photos: Path, tmp_path: Path) -> None:
    command = [
        "fit",
        str(photos),
        "--budget",
        "size<1MB",
        "--minutes",
        "0.2",
        "--models",
        "tiny_cnn_4",
        "--sizes",
        "24",
    ]
    assert run([*command, "--runtimes", "onnxruntime,litert", "--json", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {(way["backend"], way["precision"]) for way in report["runtimes"]} >= {
        ("onnxruntime", "fp32"),
        ("litert", "fp32"),
    }
    (ships,) = [way for way in report["runtimes"] if way["chosen"]]
    shipped = Bundle.open(tmp_path / "out" / "bundle").variant()
    assert (ships["backend"], ships["precision"]) == (shipped.backend, shipped.precision)
    assert shipped.accuracy is not None
    assert "Runtimes" in (tmp_path / "out" / "report.html").read_text()
