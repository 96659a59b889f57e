"""Energy of the processor packages, where the machine tells: Linux's powercap counters (Intel and AMD RAPL)."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules that all processor packages took since the meter was made, whatever ran on them.

    Counters wrap; one is read correctly where it wraps at most once between two looks, which is minutes at full load,
    so look at least every minute.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._counters = {
            zone: most
            for zone in sorted(root.glob("*-rapl:[0-9]"))
            if (most := _read(zone / "max_energy_range_uj")) is not None and _read(zone / "energy_uj") is not None
        }
        self._last = {zone: _read(zone / "energy_uj") or 0 for zone in self._counters}
        self._microjoules = 0

    @property
    def readable(self) -> bool:
        """True where the machine tells."""
        return bool(self._counters)

    def joules(self) -> float | None:
        """Return the energy since the meter was made; None where the machine does not tell."""
        if not self.readable:
            return None
        for zone, most in self._counters.items():
            now = _read(zone / "energy_uj")
            if now is not None:
                self._microjoules += (now - self._last[zone]) % (most + 1)
                self._last[zone] = now
        return self._microjoules / 1e6


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):
        return None
