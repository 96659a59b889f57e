from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyweight.cli import run
from flyweight.errors import DeviceError
from flyweight.measure.budget import Budget
from flyweight.measure.device import (
    Device,
    add_device,
    add_measurement,
    host,
    list_devices,
    load_device,
    refuse_unmeasured,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_this_machine_is_always_there_and_keeps_its_fingerprint() -> None:
    assert [device.name for device in list_devices()] == ["host"]
    assert host().fingerprint == load_device("host").fingerprint
    assert host().is_host


def test_a_device_that_was_added_loads_as_it_was() -> None:
    device = Device(name="pi-4", description="Raspberry Pi 4", memory_bytes=4 * 10**9, threads=4)
    add_device(device)
    assert load_device("pi-4") == device
    assert [found.name for found in list_devices()] == ["host", "pi-4"]


def test_measurements_are_kept_with_the_device() -> None:
    add_device(Device(name="pi"))
    add_measurement(load_device("pi"), {"latency_p50_ms": 3.0})
    assert load_device("pi").measurements == ({"latency_p50_ms": 3.0},)


def test_a_name_is_never_overwritten_unasked_and_host_never() -> None:
    add_device(Device(name="pi"))
    with pytest.raises(DeviceError, match="exists already"):
        add_device(Device(name="pi"))
    with pytest.raises(DeviceError, match="always means this machine"):
        add_device(Device(name="host"), replace=True)


@pytest.mark.parametrize("name", ["rasberry", "../../etc/passwd", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    add_device(Device(name="raspberry"))
    with pytest.raises(DeviceError, match="host, raspberry"):
        load_device(name)


def test_a_damaged_device_file_is_named(home: Path) -> None:
    add_device(Device(name="pi"))
    (home / "devices/pi.json").write_text('{"name": "pi", "speed": "fast"}')
    with pytest.raises(DeviceError, match=r"pi\.json"):
        load_device("pi")


def test_a_clock_limit_on_a_device_nothing_was_measured_on_is_refused() -> None:
    pi = Device(name="pi")
    with pytest.raises(DeviceError, match=r"latency_p90<2ms.*cannot be checked"):
        refuse_unmeasured(Budget.parse("latency_p90<2ms,size<1MB", device="pi"), pi)
    refuse_unmeasured(Budget.parse("size<1MB", device="pi"), pi)
    refuse_unmeasured(Budget.parse("latency_p90<2ms"), host())
    refuse_unmeasured(Budget.parse("latency_p90<2ms", device="pi"), Device(name="pi", measurements=({},)))


def test_the_command_adds_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "add", "pi", "--memory-mb", "1000", "--description", "on the desk"]) == 0
    assert run(["device", "list"]) == 0
    assert "on the desk" in capsys.readouterr().out
    assert run(["device", "show", "pi"]) == 0
    assert "memory    1,000 MB" in capsys.readouterr().out
    assert run(["device", "show", "pi", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory_bytes"] == 10**9


def test_the_command_refuses_a_bad_name_and_a_file_that_is_no_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["device", "add", "My Pi"]) == 1
    assert "'My Pi'" in capsys.readouterr().err
    (tmp_path / "m.json").write_text("{}")
    assert run(["device", "add", "pi", "--measurement", str(tmp_path / "m.json")]) == 1
    assert "m.json" in capsys.readouterr().err
