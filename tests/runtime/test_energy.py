"""Energy counters: read, added up over packages, and unwrapped."""

from __future__ import annotations

from pathlib import Path

from flyweight.runtime.energy import EnergyMeter


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
