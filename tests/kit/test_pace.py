"""Governor, temperature and throttling, read from a tree of files as Linux has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight.runtime.pace import board_model, processor_state, throttled_words


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_the_system_tells_is_read_in_its_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    cpu = "devices/system/cpu/cpu0"
    sys = tree(
        tmp_path,
        {
            f"{cpu}/cpufreq/scaling_governor": "ondemand\n",
            f"{cpu}/cpufreq/scaling_cur_freq": "600000\n",
            f"{cpu}/cpufreq/cpuinfo_max_freq": "1500000\n",
            f"{cpu}/thermal_throttle/core_throttle_count": "3\n",
            "class/thermal/thermal_zone0/temp": "48312\n",
            "class/thermal/thermal_zone1/temp": "51000\n",
            "class/thermal/thermal_zone2/temp": "",
        },
    )
    assert processor_state(sys) == {
        "governor": "ondemand",
        "frequency_mhz": 600.0,
        "max_frequency_mhz": 1500.0,
        "temperature_c": 51.0,
        "throttled": ["throttled 3 times since start"],
    }


def test_what_is_not_told_is_none_and_not_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert set(processor_state(tmp_path).values()) == {None}
    assert board_model(tmp_path) is None


def test_the_bits_of_the_raspberry_pi_are_in_words() -> None:
    # The value of its documentation: under-voltage and throttled, now and since start.
    assert throttled_words("throttled=0x50005\n") == [
        "under-voltage now",
        "throttled now",
        "under-voltage since start",
        "throttled since start",
    ]
    assert throttled_words("throttled=0x0") == []


def test_the_board_is_what_its_device_tree_says(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0"})
    assert board_model(tmp_path) == "Raspberry Pi 4 Model B Rev 1.4"
