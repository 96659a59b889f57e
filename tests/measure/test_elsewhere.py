"""How a bundle runs fastest on another device: its clock, and the answers of its files here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.kit.made import made, model

from flyweight.cli import run
from flyweight.data.sources import load_data
from flyweight.errors import DeviceError
from flyweight.export.bundle import run_as
from flyweight.export.convert import convert
from flyweight.measure.device import add_result, load_device
from flyweight.measure.elsewhere import timed_variants
from flyweight.measure.result import DeviceResult
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.hashes import digest_of
from flyweight.runtime.predict import Predictor

BUNDLE = Path(__file__).parents[2] / "bundles" / "tiny-fashion-mnist"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The float file by default, the int8 one that was trained for it, and OpenVINO's float file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    float_first = run_as(Bundle.open(BUNDLE), "fp32", 1, folder / "float")
    return convert(float_first, "openvino", folder / "both").bundle


def timed(bundle: Bundle, times: dict[tuple[str, int], float], monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Add a device pi4 that ran the variants in so many ms."""
    monkeypatch.setenv("FLYWEIGHT_HOME", str(home))
    rows = []
    for (name, threads), ms in times.items():
        one = bundle.variants[name]
        digest = digest_of((one.file, *one.beside))
        known = {"sha256": digest, "precision": one.precision, "backend": one.backend, "threads": threads, "enough": 30}
        rows.append(model(name, ms, **known))
    add_result(DeviceResult.model_validate(made(rows)), name="pi4")


def test_the_devices_clock_decides_and_the_bundle_remembers_the_threads(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {("fp32", 1): 8.0, ("fp32", 4): 3.0, ("openvino-fp32", 1): 12.0, ("openvino-fp32", 4): 2.0}
    timed(bundle, times, monkeypatch, tmp_path / "home")
    command = ["device", "pick", "pi4", str(bundle.path), "--data", "sample", "--out", str(tmp_path / "out")]
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["variant"], told["threads"]) == ("openvino-fp32", 4)
    shipped = Bundle.open(tmp_path / "out").variant()
    assert (shipped.name, shipped.threads) == ("openvino-fp32", 4)
    assert Predictor(tmp_path / "out").backend.name == "openvino"
    slow = next(row for row in told["rows"] if (row["variant"], row["threads"]) == ("openvino-fp32", 1))
    assert slow["because"] == "it is not measurably faster there"


def test_a_faster_file_that_answers_worse_is_not_taken(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(bundle, {("fp32", 1): 8.0, ("int8", 1): 2.0}, monkeypatch, tmp_path / "home")
    found = timed_variants(bundle, load_device("pi4"), load_data("sample"))
    assert [one.variant for one in found] == ["fp32", "int8"]
    assert not found[1].ships  # 635 images cannot show that less than a point is lost
    assert "may be worse than the margin" in found[1].because


def test_a_device_that_did_not_time_the_default_is_no_judge(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(bundle, {("int8", 1): 2.0}, monkeypatch, tmp_path / "home")
    with pytest.raises(DeviceError, match="pi4 did not time 'fp32'"):
        timed_variants(bundle, load_device("pi4"), load_data("sample"))
