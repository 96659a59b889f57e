"""What a device sends back is believed only whole, unchanged and of a known version; then it is a device."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tests.kit.made import made, model, runs, written

from flyweight.cli import run
from flyweight.cli.schema import schema_of
from flyweight.errors import DeviceError
from flyweight.export.bundle import write_bundle as export_bundle
from flyweight.measure.device import add_result, host, load_device
from flyweight.measure.result import DeviceResult, read_result
from flyweight.models.architecture import Architecture
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.canonical import seal
from flyweight.runtime.preprocess import Preprocess


@pytest.fixture
def good() -> dict[str, Any]:
    return made([model("fp32", 3.0)])


def error_of(path: Path) -> str:
    with pytest.raises(DeviceError) as caught:
        read_result(path)
    return caught.value.what


def test_a_result_is_as_the_published_schema_says(ran: Path, good: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(ran.read_text()), schema_of("result"))
    jsonschema.validate(good, schema_of("result"))


def test_quantiles_are_taken_of_the_samples_that_came(good: dict[str, Any], tmp_path: Path) -> None:
    row = read_result(written(tmp_path / "r.json", good)).models[0]
    samples = np.concatenate([one["samples_ns"] for one in good["models"][0]["clocks"]["model"]]) / 1e6
    assert row.budget_values()["latency_p50"] == pytest.approx(np.quantile(samples, 0.5), rel=1e-3)
    assert row.budget_values()["latency_p90"] == pytest.approx(np.quantile(samples, 0.9), rel=1e-3)


def test_too_few_samples_give_no_p99_as_here(tmp_path: Path) -> None:
    few = made([model("fp32", 3.0, clocks={"model": runs(3.0, n=20)}, enough=30)])
    values = read_result(written(tmp_path / "r.json", few)).models[0].budget_values()
    assert values["latency_p90"] is not None
    assert values["latency_p99"] is None


def test_the_page_of_a_phone_may_send_less(tmp_path: Path) -> None:
    versions = {"onnxruntime-web": "1.31.0"}
    conditions = {"cpu": "unknown", "cores": 8, "os": "Android 16", "browser": "Chrome 150", "versions": versions,
                  "date": "2026-11-01", "command": "page", "clock_resolution_ns": 100_000}  # fmt: skip
    sent = [{key: one[key] for key in ("samples_ns", "steady", "warmup_runs")} for one in runs(8.0)]
    row = model("fp32", 8.0, clocks={"model": sent}, backend="onnxruntime-web")
    result = made([row], made_by="web", conditions=conditions)
    device = add_result(read_result(written(tmp_path / "r.json", result)), name="phone")
    assert device.runtimes == {"onnxruntime-web": "1.31.0"}
    assert "Chrome 150" in device.description
    assert device.models()[0].budget_values()["latency_p90"] == pytest.approx(8.0, rel=0.01)


def test_a_number_that_was_edited_is_noticed(good: dict[str, Any], tmp_path: Path) -> None:
    good["models"][0]["clocks"]["model"][0]["samples_ns"][0] -= 1
    assert "has changed since it was measured" in error_of(written(tmp_path / "r.json", good))


def test_a_result_of_another_version_says_which(good: dict[str, Any], tmp_path: Path) -> None:
    said = error_of(written(tmp_path / "r.json", seal({**good, "result_version": 2, "flyweight_version": "0.9.0"})))
    assert "result_version 2" in said
    assert "'0.9.0'" in said


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_was_cut_off_is_no_whole_json(share: float, good: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", good)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "is no whole JSON file" in error_of(path)


@pytest.mark.parametrize("text", ["[1]", "{}", '"x"', '{"result_version": NaN}', "[" * 100_000, '{"a": "\\ud800"}'])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    assert "r.json" in error_of(tmp_path / "r.json")


def test_a_lone_surrogate_is_refused(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({**good, "device": "\ud800"}))
    assert "is no valid result" in error_of(tmp_path / "r.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change", [{"models": []}, {"made_by": "me"}, {"extra": 1}, {"bundle": {"name": "x", "sha256": "short"}}]
)
def test_a_sealed_result_of_another_shape_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    assert "is no valid result" in error_of(
        written(tmp_path / "r.json", seal({**made([model("fp32", 3.0)]), **change}))
    )


def test_a_result_whose_answers_are_not_the_bundles_makes_no_device(tmp_path: Path) -> None:
    golden = {"ok": False, "n": 32, "max_error": 2.5, "tolerance": 1e-4}
    bad = model("fp32", 3.0, golden=golden, problem="other answers than recorded", clocks={})
    with pytest.raises(DeviceError, match="does not verify there"):
        add_result(read_result(written(tmp_path / "r.json", made([bad]))))


def test_a_result_that_measured_nothing_makes_no_device(tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", made([model("fp32", 3.0, clocks={}, problem="cannot load")]))
    with pytest.raises(DeviceError, match="nothing was measured on that device: cannot load"):
        add_result(read_result(path))


def test_this_machines_own_result_has_its_fingerprint(ran: Path) -> None:
    here = host()
    if "openvino" in here.runtimes:  # which the kit's environment lacks
        here = here.model_copy(update={"runtimes": {"onnxruntime": here.runtimes["onnxruntime"]}})
    device = add_result(read_result(ran))
    assert (device.name, device.runtimes, device.memory_bytes) == ("pi4", here.runtimes, here.memory_bytes)


def test_a_later_result_of_the_same_machine_counts_and_the_same_again_changes_nothing(good: dict[str, Any]) -> None:
    first, later = (DeviceResult.model_validate(made([model("fp32", ms)])) for ms in (3.0, 2.0))
    for result in (first, later, later):
        device = add_result(result, name="pi4")
    assert len(load_device("pi4").results) == 2
    (row,) = device.models()
    assert row.budget_values()["latency_p50"] == pytest.approx(2.0, rel=0.01)


def test_another_machine_does_not_take_a_name_unasked(good: dict[str, Any]) -> None:
    add_result(DeviceResult.model_validate(good), name="pi4")
    other = made([model("fp32", 1.0)], conditions={**good["conditions"], "cpu": "Cortex-A76"})
    with pytest.raises(DeviceError, match="'pi4' is another machine"):
        add_result(DeviceResult.model_validate(other), name="pi4")
    assert len(add_result(DeviceResult.model_validate(other), name="pi4", replace=True).results) == 1


def test_the_commands_add_list_and_show_what_came(
    good: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "r.json", good)
    assert run(["device", "add", str(path)]) == 0
    assert run(["device", "list"]) == 0
    assert "raspberry-pi-4-model-b-rev-1-4" in capsys.readouterr().out
    assert run(["device", "show", "raspberry-pi-4-model-b-rev-1-4"]) == 0
    shown = capsys.readouterr().out
    for words in ("governor ondemand", "41 to 78 °C", "HELD BACK: throttled since start", "p50 3 ms"):
        assert words in shown
    assert run(["device", "add", str(path), "--name", "My Pi"]) == 1
    assert "'My Pi' cannot be the name" in capsys.readouterr().err


def a_bundle(out: Path) -> Bundle:
    architecture = Architecture("tiny_cnn_4", 3, 1, 16, mean=(0.3,), std=(0.25,))
    return export_bundle(
        out, network=architecture.build().eval(), architecture=architecture, classes=("a", "b", "c"),
        preprocess=Preprocess(16, 1, mean=(0.3,), std=(0.25,)), temperature=1.0,
        golden_images=np.random.default_rng(0).integers(0, 256, (32, 1, 16, 16), np.uint8), split_rule={},
        provenance={}, recipe_yaml="name: tiny\n",
    )  # fmt: skip


def test_a_devices_times_are_written_into_an_archive(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "b.zip")
    digest = hashlib.sha256(bundle.variant().file.read_bytes()).hexdigest()
    result = written(tmp_path / "r.json", made([model("fp32", 3.0, sha256=digest)]))
    assert run(["device", "add", str(result), "--name", "pi-zip", "--bundle", str(tmp_path / "b.zip")]) == 0
    assert "pi-zip" in Bundle.open(tmp_path / "b.zip").provenance["devices"]


def test_a_result_of_another_bundle_is_refused_before_the_device_is_stored(
    good: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_bundle(tmp_path / "b.zip")
    result = written(tmp_path / "r.json", good)
    assert run(["device", "add", str(result), "--name", "pi-other", "--bundle", str(tmp_path / "b.zip")]) == 1
    assert "none of its files" in capsys.readouterr().err
    with pytest.raises(DeviceError):
        load_device("pi-other")
