"""Energy counters: read, added up over packages, and unwrapped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flyweight.runtime import energy
from flyweight.runtime.energy import EnergyMeter, add_energy, energy_of, looked_at


def counter(root: Path, name: str, value: int, most: int = 1_000_000) -> Path:
    zone = root / name
    zone.mkdir(exist_ok=True)
    (zone / "max_energy_range_uj").write_text(f"{most}\n")
    (zone / "energy_uj").write_text(f"{value}\n")
    return zone


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 100)
    counter(tmp_path, "intel-rapl:1", 500)
    counter(tmp_path, "intel-rapl:0:0", 7)
    meter = EnergyMeter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 300_100)
    counter(tmp_path, "intel-rapl:1", 200_500)
    counter(tmp_path, "intel-rapl:0:0", 900_000)
    assert meter.joules() == 0.5
    counter(tmp_path, "intel-rapl:1", 300_500)
    assert meter.joules() == 0.6


def test_a_counter_that_wrapped_is_unwrapped(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 999_000)
    meter = EnergyMeter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 999)
    assert meter.joules() == 2_000 / 1e6


def test_a_machine_that_does_not_tell_is_none_and_not_zero(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path).joules() is None
    assert EnergyMeter(tmp_path / "missing").joules() is None


def test_a_meter_is_looked_at_often_enough_while_something_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "LOOK_SECONDS", 0.01)
    counter(tmp_path, "intel-rapl:0", 0)
    with looked_at(EnergyMeter(tmp_path)) as meter:
        for value in (600_000, 200_000, 800_000):  # wraps once between the first two, as seen by who looks at each
            counter(tmp_path, "intel-rapl:0", value)
            time.sleep(0.5)
    assert meter.joules() == pytest.approx(1.8, abs=1e-5)


def test_the_energy_of_a_folder_is_that_of_the_calls_that_could_tell(tmp_path: Path) -> None:
    assert energy_of(tmp_path) == (None, (0, 0))
    add_energy(tmp_path, None, 1.0)
    assert energy_of(tmp_path) == (None, (0, 1))
    add_energy(tmp_path, 2.5, 1.0)
    add_energy(tmp_path, 4.0, 1.0)
    assert energy_of(tmp_path) == (6.5, (2, 3))
