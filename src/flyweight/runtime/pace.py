"""What sets the processor's pace, where the system tells: governor, frequency, temperature, throttling.

Source: Linux kernel, Documentation/admin-guide/pm/cpufreq.rst and Documentation/driver-api/thermal/sysfs-api.rst;
Raspberry Pi documentation, "vcgencmd get_throttled".
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

SYS = Path("/sys")
FREQUENCY = "devices/system/cpu/cpu0/cpufreq"
THROTTLED = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "under-voltage since start",
    17: "frequency capped since start",
    18: "throttled since start",
    19: "soft temperature limit since start",
}


def processor_state(sys: Path = SYS) -> dict[str, Any]:
    """Return governor, frequencies (MHz), the highest temperature (°C) and throttling; None for what is not told."""
    temperatures = [_number(zone / "temp", 1e-3) for zone in sorted(sys.glob("class/thermal/thermal_zone*"))]
    return {
        "governor": _text(sys / FREQUENCY / "scaling_governor"),
        "frequency_mhz": _number(sys / FREQUENCY / "scaling_cur_freq", 1e-3),
        "max_frequency_mhz": _number(sys / FREQUENCY / "cpuinfo_max_freq", 1e-3),
        "temperature_c": max((one for one in temperatures if one is not None), default=None),
        "throttled": _throttled(sys),
    }


def board_model(root: Path = Path("/")) -> str | None:
    """Return what the board calls itself, such as `Raspberry Pi 4 Model B Rev 1.4`, or None."""
    found = _text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name")
    return found.strip("\0 ") if found else None


def throttled_words(answer: str) -> list[str]:
    """Return what the bits of `throttled=0x50005` mean. Raises ValueError where it is no such answer."""
    bits = int(answer.strip().rpartition("=")[2], 16)
    return [words for bit, words in THROTTLED.items() if bits >> bit & 1]


def _throttled(sys: Path) -> list[str] | None:
    asked = _vcgencmd()
    if asked is not None:
        return asked
    counts = [_number(file) for file in sys.glob("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")]
    known = [count for count in counts if count is not None]
    if not known:
        return None
    return [f"throttled {max(known):.0f} times since start"] if max(known) else []


def _vcgencmd() -> list[str] | None:
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False).stdout
        return throttled_words(said)
    except (OSError, ValueError, subprocess.TimeoutExpired):  # it says so where it may not be asked
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path, scale: float = 1.0) -> float | None:
    try:
        return round(float(_text(path) or "") * scale, 3)
    except ValueError:
        return None
