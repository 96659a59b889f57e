"""The sweep from end to end, once on a tiny bundle, and every way it can be asked for what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from tests.runtime.tiny_bundle import model, write_bundle

from flyweight.cli import run
from flyweight.cli.schema import schema_of
from flyweight.errors import BudgetError, BundleError
from flyweight.measure import sweep as module
from flyweight.measure.budget import duration_ms
from flyweight.measure.engines import agreement
from flyweight.measure.sweep import sweep
from flyweight.measure.table import Sweep
from flyweight.runtime.backends import engines_of
from flyweight.runtime.hashes import write_sums


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("swept") / "bundle")


@pytest.fixture(scope="module")
def swept(bundle: Path) -> Sweep:
    return sweep(bundle, batches=(1, 2, 4), backends=("all",), quick=True)


def write_fixed(folder: Path, batch: int) -> Path:
    """Write the model with room for `batch` images and no other number of them."""
    made = model()
    for value in (made.graph.input[0], made.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(made, folder / "fixed.onnx")
    return folder / "fixed.onnx"


def test_every_backend_and_batch_has_its_row(swept: Sweep) -> None:
    assert [(row.backend, row.batch) for row in swept.batches] == [
        (name, batch) for name in engines_of() for batch in (1, 2, 4)
    ]
    for row in swept.batches:
        assert (row.model, row.precision, row.threads, row.processes) == ("fp32", "fp32", 1, 1)
        assert row.n >= 30
        assert row.p50.ms is not None
        assert row.images_per_second > 0
        assert row.memory_peak_bytes is not None
        assert row.device_p50 is None
    assert swept.left_out == ()


def test_every_curve_has_its_saturation(swept: Sweep) -> None:
    assert [curve.backend for curve in swept.curves] == list(engines_of())
    assert {curve.saturation_batch for curve in swept.curves} <= {1, 2, 4}
    assert all((curve.knee_batch is None) == (curve.reason is not None) for curve in swept.curves)


def test_a_backend_that_answers_as_exported_is_within_the_tolerance(swept: Sweep) -> None:
    for engine in swept.engines:
        assert (engine.reference, engine.n, engine.top1_agreement, engine.within) == ("golden", 32, 1.0, True)
        assert engine.nodes > 0
        assert engine.elsewhere == ()


def test_a_backend_that_answers_otherwise_is_timed_all_the_same_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "bundle")
    golden = np.load(path / "golden/logits-fp32.npy")
    golden[:8] = golden[:8, ::-1]
    np.save(path / "golden/logits-fp32.npy", golden)
    write_sums(path)
    monkeypatch.setattr(module, "time_cells", lambda cells, **how: ([], []))
    (engine,) = sweep(path).engines
    assert engine.within is False
    assert engine.top1_agreement is not None
    assert engine.top1_agreement < 1
    assert engine.largest_difference is not None
    assert engine.largest_difference > engine.tolerance  # type: ignore[operator]


def test_agreement_counts_the_best_class_and_the_largest_difference() -> None:
    expected = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]], np.float32)
    found = expected + np.array([[0.0, 0.5], [0.0, 0.0], [2.0, 0.0], [0.0, -0.25]], np.float32)
    said = agreement(found, expected, 1.0)
    assert (said["top1_agreement"], said["largest_difference"], said["within"], said["n"]) == (0.75, 2.0, False, 4)
    assert agreement(found, expected, 2.0)["within"] is True
    assert agreement(found, expected, None)["within"] is None
    assert agreement(np.full((4, 2), np.nan), expected, 1.0)["within"] is False
    assert agreement(found[:, :1], expected, 1.0)["top1_agreement"] is None


def test_bare_files_are_compared_with_the_default_engine_on_the_same_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time_cells", lambda cells, **how: ([], []))
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path, gain in zip(paths, (6.0, 20.0), strict=True):
        path.write_bytes(model(gain=gain).SerializeToString())
    found = sweep(paths, backends=("openvino",))
    assert [(engine.model, engine.reference, engine.within) for engine in found.engines] == [
        (str(path), "onnxruntime", None) for path in paths
    ]
    assert all(engine.largest_difference < 1e-4 for engine in found.engines)  # type: ignore[operator]


def test_more_threads_than_cores_are_allowed_and_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time_cells", lambda cells, **how: ([], []))
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    assert sweep(bundle, threads=(2,)).notes == ()
    assert "3 threads were asked for, and this process may use 2 core(s)" in sweep(bundle, threads=(3,)).notes[0]
    assert "4 threads" in sweep(bundle, threads=(2,), workers=2).notes[0]


def test_what_does_not_fit_into_the_minutes_is_left_out_and_named(bundle: Path) -> None:
    found = sweep(bundle, batches=(1, 8), scenarios=("single-stream",), minutes=0.0)
    assert found.batches == found.loads == ()
    assert len(found.left_out) == 3
    assert {one.why for one in found.left_out} == {"the 0 minutes were over"}


def test_a_model_with_a_fixed_batch_runs_that_batch_and_refuses_others_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time_cells", lambda cells, **how: ([], []))
    file = write_fixed(tmp_path, 2)
    assert [engine.error for engine in sweep(file, batches=(2,), backends=("all",)).engines] == [None, None]
    for asked in ({"batches": (1, 2, 4)}, {"batches": (), "scenarios": ("multi-stream",)}):
        with pytest.raises(BundleError, match=r"fixed\.onnx.* takes 2 image"):
            sweep(file, **asked)  # type: ignore[arg-type]


def test_a_backend_that_cannot_run_a_file_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time_cells", lambda cells, **how: ([], []))
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    found = sweep(tmp_path / "bad.onnx")
    assert "cannot load" in str(found.engines[0].error)
    assert found.left_out[0].what == "bad.onnx on onnxruntime"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"batches": (1, 0)}, "batch is 0"),
        ({"threads": (0,)}, "threads is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"backends": ("onnxruntim",)}, "unknown backend 'onnxruntim'"),
        ({"scenarios": ("sever",)}, "unknown scenario 'sever'"),
        ({"scenarios": ("server",)}, "server needs a bound"),
        ({"variant": "int4"}, "no variant 'int4'"),
    ],
)
def test_what_is_not_there_is_refused_by_name(bundle: Path, asked: dict[str, object], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        sweep(bundle, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "ms"), [("5ms", 5.0), (".2 s", 200.0), ("250us", 0.25)])
def test_a_bound_is_a_number_with_its_unit(text: str, ms: float) -> None:
    assert duration_ms(text) == pytest.approx(ms)


@pytest.mark.parametrize(
    ("text", "words"), [("5", "no unit"), ("5MB", "unknown unit"), ("fast", "no time"), ("0ms", "no")]
)
def test_a_bound_without_a_unit_of_time_is_refused(text: str, words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        duration_ms(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "1,0"], "'0' is not a whole number"),
        (["--batch", "1,two"], "'two' is not a whole number"),
        (["--batch", ""], "'' is not a whole number"),
        (["--threads", "0"], "'0' is not a whole number"),
        (["--batch", "1", "--data", "x"], "--data"),
        (["--bound", "5ms"], "goes with --batch"),
        (["--batch", "1", "--bound", "5ms"], "goes with --scenario server"),
        (["--scenario", "single-stream", "--workers", "2"], "goes with --scenario server or offline"),
        (["--out", "x"], "goes with --batch"),
    ],
)
def test_options_that_say_nothing_are_a_usage_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["measure", "bundle", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_bound_without_a_unit_is_an_error_of_the_command(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", str(bundle), "--scenario", "server", "--bound", "5"]) == 1
    assert "write 5ms" in capsys.readouterr().err


def test_the_command_prints_what_was_found_and_writes_its_page(
    bundle: Path, swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("flyweight.cli.sweep.run_sweep", lambda path, **how: asked.update(how) or swept)
    line = ["measure", str(bundle), "--batch", "1,2,4", "--backend", "all", "--threads", "1,2", "--scenario"]
    assert run([*line, "server,offline", "--bound", "5ms", "--out", str(tmp_path)]) == 0
    del asked["progress"]
    assert asked == {
        "threads": (1, 2), "batches": (1, 2, 4), "backends": ("all",), "scenarios": ("server", "offline"),
        "bound_ms": 5.0, "workers": 1, "minutes": None, "quick": False, "variant": None,
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "within tolerance: 100.0% same best class of 32" in " ".join(printed.split())
    assert "saturated at batch" in " ".join(printed.split())
    assert (tmp_path / "report.html").read_text("utf-8").count("plot-latency") >= 2
    assert run(["report", str(tmp_path), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/report.html").read_bytes() == (tmp_path / "report.html").read_bytes()
    assert run([*line[:4], "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    jsonschema.validate(found, schema_of("sweep"))
    assert Sweep.model_validate(found) == swept
