"""How a bundle runs fastest on another device: its clock decides there, the answers are compared here."""

from __future__ import annotations

from dataclasses import dataclass

from flyweight.data.dataset import Dataset
from flyweight.errors import DeviceError
from flyweight.export.c.check import compile_if_ours
from flyweight.measure.device import Device
from flyweight.measure.latency import LatencyResult
from flyweight.measure.replace import may_replace
from flyweight.measure.result import DeviceModel
from flyweight.measure.trial import answers_of, decided_by, speed_of
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.hashes import digest_of


@dataclass(frozen=True)
class TimedVariant:
    """A variant with a number of threads, as the device timed it.

    Attributes:
        ships: It may take the place of the bundle's default: faster there, and as accurate.
        because: Why, or why not.
    """

    variant: str
    threads: int
    latency: LatencyResult
    ships: bool
    because: str


def timed_variants(bundle: Bundle, device: Device, dataset: Dataset) -> list[TimedVariant]:
    """Return what the device timed of a bundle, the present default first, then the fastest first.

    Args:
        dataset: What the bundle was trained on: its validation images decide on accuracy, through the runtimes here.

    Raises:
        DeviceError: The device did not time the bundle's default variant.
        DataError: There are no such images.
    """
    rows = _rows(bundle, device)
    default = bundle.variant()
    own = sorted((row for row in rows if row[0] == default.name), key=lambda row: _p50(row[1]))
    if not own:
        raise DeviceError(
            f"{device.name} did not time {default.name!r}, the default of the bundle {bundle.name!r}",
            do=f"time it there: flyweight kit BUNDLE --name {device.name} --out kit.zip",
        )
    _, base, threads = own[0]
    where, indices = decided_by(bundle, dataset, "val")
    before = answers_of(bundle, default.name, dataset, indices)
    found = [TimedVariant(default.name, threads, base, True, "the default of the bundle")]
    for name, latency, count in sorted((row for row in rows if row != own[0]), key=lambda row: _p50(row[1])):
        speed = speed_of(base, latency)
        if speed.verdict != "faster":
            found.append(TimedVariant(name, count, latency, False, "it is not measurably faster there"))
            continue
        compile_if_ours(bundle, bundle.variant(name))
        answer = may_replace(before, answers_of(bundle, name, dataset, indices), dataset, where, speed)
        found.append(TimedVariant(name, count, latency, answer.ships, answer.because))
    return found


def _rows(bundle: Bundle, device: Device) -> list[tuple[str, LatencyResult, int]]:
    names = {digest_of((one.file, *one.beside)): name for name, one in bundle.variants.items()}
    rows: list[DeviceModel] = [row for row in device.models() if row.sha256 in names]
    timed = ((names[row.sha256], row.latency(), row.threads) for row in rows)
    return [(name, latency, threads) for name, latency, threads in timed if latency is not None]


def _p50(latency: LatencyResult) -> float:
    return latency.p50_ms if latency.p50_ms is not None else float("inf")
