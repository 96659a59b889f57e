"""Energy of the processor packages, where the machine tells: Linux's powercap counters (Intel and AMD RAPL)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

from flyweight.files import write_text

POWERCAP = Path("/sys/class/powercap")
ENERGY = "energy.jsonl"
LOOK_SECONDS = 30.0


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


@contextlib.contextmanager
def looked_at(meter: EnergyMeter) -> Iterator[EnergyMeter]:
    """Look at a meter often enough, by a thread, while something runs that cannot."""
    ended = Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            meter.joules()

    thread = Thread(target=look, daemon=True)
    if meter.readable:
        thread.start()
    try:
        yield meter
    finally:
        ended.set()
        if meter.readable:
            thread.join()


def add_energy(out: Path, joules: float | None, seconds: float) -> None:
    """Write down what one call took: joules of all processor packages (None: the machine does not tell), seconds."""
    file = out / ENERGY
    before = file.read_text("utf-8") if file.is_file() else ""
    write_text(file, before + json.dumps({"joules": joules, "seconds": round(seconds, 1)}) + "\n")


def energy_of(out: Path) -> tuple[float | None, tuple[int, int]]:
    """Return joules of the calls that could tell (None: none could), how many could, and how many there were."""
    file = out / ENERGY
    calls = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    known = [call["joules"] for call in calls if call["joules"] is not None]
    return (sum(known) if known else None), (len(known), len(calls))


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):
        return None
