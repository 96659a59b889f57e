"""`fit` for another device: its own times count, and this machine's clock is not asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.kit.made import made, model

from flyweight.errors import DeviceError
from flyweight.export.onnx import export_untrained
from flyweight.fit.candidates import Candidate
from flyweight.fit.flow import _timed_only
from flyweight.fit.weigh import Weighed, architecture_of, net_of, refuse_untimed, weigh
from flyweight.measure.budget import Budget
from flyweight.measure.device import Device, add_result, load_device
from flyweight.measure.result import DeviceResult
from flyweight.models.cost import count

FAST, SLOW, UNKNOWN = Candidate("tiny_cnn_4", 12), Candidate("tiny_cnn_8", 12), Candidate("tiny_cnn_4", 16)
SHAPE = {"channels": 1, "num_classes": 3, "threads": 1}
BUDGET = Budget.parse("latency_p90<5ms@pi4,memory<60MB,size<1MB")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def pi4(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A Raspberry Pi that takes 3.5 ms and 7 ms, far more than this machine."""
    monkeypatch.setenv("FLYWEIGHT_HOME", str(folder / "home"))
    rows = [row(folder, FAST, 3.5), row(folder, SLOW, 7.0)]
    add_result(DeviceResult.model_validate(made(rows)), name="pi4")
    return load_device("pi4")


def row(folder: Path, candidate: Candidate, ms: float, **changes: object) -> dict[str, object]:
    architecture = architecture_of(candidate, 1, 3)
    cost = count(export_untrained(architecture, folder / "counted.onnx"))
    memory = {"peak_bytes": 50_000_000, "empty_bytes": 40_000_000, "increment_bytes": 10_000_000, "processes": 1}
    known = {"kind": "candidate", "candidate": net_of(architecture).model_dump(), "memory": memory, "enough": 30}
    return model(candidate.name, ms, params=cost.params, macs=cost.macs, **known, **changes)


def weighed(folder: Path, device: Device, budget: Budget = BUDGET) -> list[Weighed]:
    return weigh([FAST, SLOW, UNKNOWN], budget, folder / "work", device=device, **SHAPE)


def test_the_device_decides_who_is_within_the_limit(folder: Path, pi4: Device) -> None:
    fast, slow, unknown = weighed(folder, pi4)
    assert fast.values["latency_p90"] == pytest.approx(3.5, rel=0.01)
    assert fast.values["memory"] == 50e6
    assert [check.status for check in fast.checks] == ["met", "met", "met"]
    assert not slow.within  # on this machine it takes a fraction of a millisecond
    assert [check.status for check in unknown.checks] == ["unverified", "unverified", "met"]
    assert unknown.values["latency_p90"] is None
    assert _timed_only([fast, unknown]) == [fast]


def test_a_new_result_weighs_again(folder: Path, pi4: Device) -> None:
    assert not weighed(folder, pi4)[1].within
    again = made([row(folder, SLOW, 2.0)], flyweight_version="0.1.1")
    device = add_result(DeviceResult.model_validate(again), name="pi4")
    assert weighed(folder, device)[1].within


def test_a_time_of_another_graph_under_the_same_name_does_not_count(folder: Path, pi4: Device) -> None:
    other = row(folder, FAST, 1.0) | {"macs": 1}
    device = add_result(DeviceResult.model_validate(made([other])), name="pi5")
    (found,) = weigh([FAST], replace(BUDGET, device="pi5"), folder / "work", device=device, **SHAPE)
    assert not found.verified


def test_a_device_that_timed_none_of_the_candidates_is_refused_with_the_kit_that_would(pi4: Device) -> None:
    with pytest.raises(DeviceError, match="timed none of the 1 candidates") as caught:
        refuse_untimed([UNKNOWN], BUDGET, pi4, **SHAPE)
    assert "flyweight kit BUNDLE --candidates --sizes 16 --threads 1 --name pi4" in caught.value.do
    with pytest.raises(DeviceError, match="timed none"):
        refuse_untimed([FAST], BUDGET, pi4, **{**SHAPE, "threads": 4})
    refuse_untimed([FAST, UNKNOWN], BUDGET, pi4, **SHAPE)
    refuse_untimed([UNKNOWN], Budget.parse("size<1MB", device="pi4"), pi4, **SHAPE)
