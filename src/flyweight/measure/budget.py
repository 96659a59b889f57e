"""Budgets: limits a model must keep, and the one thing to maximise within them.

`latency_p90<2ms,size<500KB,memory<64MB,params<20k,macs<10M`; KB is 1000 bytes, KiB 1024. `latency_p90<5ms@pi4` is
about the device pi4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NoReturn

import numpy as np

from flyweight.errors import BudgetError
from flyweight.measure.accuracy import METRICS

Status = Literal["met", "violated", "unverified"]

TIMES = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1000.0}
BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
COUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

# metric: (its units, what it means). Latency in ms, the rest in bytes or counts.
LIMITS: dict[str, tuple[Mapping[str, float], str]] = {
    "latency_p50": (TIMES, "median time of one image, model only"),
    "latency_p90": (TIMES, "time that 90 % of images keep, model only"),
    "latency_p99": (TIMES, "time that 99 % of images keep, model only"),
    "size": (BYTES, "bytes of the model file"),
    "memory": (BYTES, "peak memory of a fresh process"),
    "memory_increment": (BYTES, "what the model adds to an empty runner"),
    "peak_activation": (BYTES, "counted: most bytes of activations alive at once"),
    "params": (COUNTS, "counted: learned values"),
    "macs": (COUNTS, "counted: multiply-accumulates of one image"),
}
MEASURED = frozenset({"latency_p50", "latency_p90", "latency_p99", "memory", "memory_increment"})

# Starting points. No latency or memory in them: those belong to a device, and this machine's clock is not its clock.
NAMED = {
    "microcontroller": "size<256KB,peak_activation<128KB,macs<10M",
    "raspberry-pi": "size<2MB,peak_activation<8MB,macs<60M",
    "phone": "size<5MB,peak_activation<16MB,macs<300M",
    "laptop": "size<20MB,peak_activation<64MB,macs<1G",
    "server": "size<100MB,peak_activation<256MB,macs<5G",
}
LIMIT = re.compile(
    r"\s*([A-Za-z0-9_-]+)\s*(<=|<)\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ]*)\s*(?:@\s*([A-Za-z0-9_.-]+)\s*)?"
)


@dataclass(frozen=True)
class Limit:
    """One upper bound, in ms, bytes or a count; `text` is how the user wrote it, `device` what follows its @."""

    metric: str
    value: float
    inclusive: bool
    text: str
    device: str | None = None


@dataclass(frozen=True)
class Check:
    """A limit and what was found.

    Attributes:
        value: In the unit of `limit` (ms, bytes, count); None when nothing was measured.
        status: `unverified` where there is no value for this limit on the budget's device.
    """

    metric: str
    limit: float
    value: float | None
    status: Status

    @property
    def shown_limit(self) -> str:
        """Return the limit with its unit."""
        return show(self.metric, self.limit)

    @property
    def shown_value(self) -> str:
        """Return the value with its unit, or "not measured"."""
        return "not measured" if self.value is None else show(self.metric, self.value)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"metric": self.metric, "limit": self.limit, "value": self.value, "status": self.status}


@dataclass(frozen=True)
class Budget:
    """Limits on a device and what to maximise; `Budget.parse` reads one."""

    limits: tuple[Limit, ...]
    maximize: str
    device: str
    text: str

    @classmethod
    def parse(cls, text: str, *, maximize: str | None = None, device: str | None = None) -> Budget:
        """Read a budget such as `latency_p90<2ms,size<500KB,maximize=macro_f1`, or one of `NAMED` (and more limits).

        A limit written after a named budget replaces that budget's own.

        Args:
            device: That all limits are for; without, the one that a limit names (`latency_p90<5ms@pi4`), or the host.

        Raises:
            BudgetError: Unknown metric or unit, a number that cannot be read, a metric that is limited twice, or two
                devices.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        named = [part for part in parts if part in NAMED]
        limits: dict[str, Limit] = {}
        for name in named:
            limits |= {limit.metric: limit for limit in map(_limit, NAMED[name].split(","))}
        own = [part for part in parts if part not in NAMED]
        chosen = [_maximize(part) for part in own if part.lower().startswith("maximize")]
        written = [_limit(part) for part in own if not part.lower().startswith("maximize")]
        _refuse_twice([*(limit.metric for limit in written), *("maximize" for _ in chosen)], text, len(named))
        limits |= {limit.metric: limit for limit in written}
        if maximize and chosen and maximize != chosen[0]:
            _refuse(f"the budget maximises {chosen[0]!r}, and {maximize!r} is asked for too", "name one of them")
        goal = _maximize(f"maximize={maximize}") if maximize else (chosen or ["accuracy"])[0]
        return cls(tuple(limits.values()), goal, _device([limit.device for limit in written], device, text), text)

    def limits_metric(self, metric: str) -> bool:
        """Say whether there is a limit on `metric`, or on a part of it (`memory` covers `memory_increment`)."""
        return any(limit.metric == metric or limit.metric.startswith(f"{metric}_") for limit in self.limits)

    def check(self, values: Mapping[str, float | None], *, measured_on: str = "host") -> list[Check]:
        """Compare each limit with the value found.

        Args:
            values: By metric, in ms, bytes or counts; what is missing or None stays unverified.
            measured_on: The device whose clock and memory they are. Where it is not the budget's device, measured
                values are no evidence and their limits stay unverified; counts and sizes hold everywhere.
        """
        foreign = MEASURED if measured_on != self.device else frozenset()
        known = {metric: None if metric in foreign else value for metric, value in values.items()}
        return [
            Check(limit.metric, limit.value, known.get(limit.metric), _status(limit, known)) for limit in self.limits
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        limits = [{"metric": limit.metric, "limit": limit.value, "text": limit.text} for limit in self.limits]
        return {"text": self.text, "limits": limits, "maximize": self.maximize, "device": self.device}


def duration_ms(text: str) -> float:
    """Return a time such as `5ms` or `0.2s` in ms. Raises BudgetError where it is none, or has no unit."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ]*)\s*", text)
    if match is None or float(match[1]) <= 0:
        _refuse(f"{text!r} is no time above 0", "write a number and its unit, such as 5ms")
    number, unit = match.groups()
    if unit not in TIMES:
        what = f"unknown unit {unit!r} in {text!r}" if unit else f"no unit in {text!r}"
        _refuse(what, f"write {number}ms; units: {_listed(TIMES)}")
    return float(number) * TIMES[unit]


def show(metric: str, value: float) -> str:
    """Return a value of a budget's metric with a fitting unit, in the words a budget understands."""
    units = LIMITS[metric][0]
    if units is TIMES:
        return f"{_digits(value, 3)}ms"
    steps = [("G", 10**9), ("M", 10**6), ("k" if units is COUNTS else "K", 10**3), ("", 1)]
    prefix, factor = next((step for step in steps if value >= step[1]), ("", 1))
    return f"{_digits(value / factor, 4)}{prefix}{'' if units is COUNTS else 'B'}"


def _digits(value: float, significant: int) -> str:
    """Return a number without an exponent, which a budget could not read."""
    return np.format_float_positional(value, significant, unique=False, fractional=False, trim="-")


def _status(limit: Limit, values: Mapping[str, float | None]) -> Status:
    value = values.get(limit.metric)
    if value is None:
        return "unverified"
    return "met" if value < limit.value or (limit.inclusive and value == limit.value) else "violated"


def _limit(part: str) -> Limit:
    match = LIMIT.fullmatch(part)
    if match is None:
        _unreadable(part)
    metric, sign, number, unit, device = match.groups()
    if metric not in LIMITS:
        _unknown(metric, part)
    value = float(number.replace("_", "")) * _factor(metric, unit, number, part)
    if value <= 0:
        _refuse(f"the limit {part!r} leaves nothing", f"give {metric} a limit above 0")
    return Limit(metric, value, sign == "<=", part, device)


def _device(named: list[str | None], given: str | None, text: str) -> str:
    """Return the one device of a budget: all its limits are for the same."""
    devices = list(dict.fromkeys(name for name in (given, *named) if name is not None))
    if len(devices) > 1:
        _refuse(
            f"the budget {text!r} is for two devices, {devices[0]!r} and {devices[1]!r}",
            f"keep one, as in latency_p90<5ms@{devices[-1]}; all limits of a budget are for one device",
        )
    return devices[0] if devices else "host"


def _factor(metric: str, unit: str, number: str, part: str) -> float:
    units = LIMITS[metric][0]
    # kb and Kb mean KB. Of counts only K and g are taken so: m could be M or milli.
    folded = {name.lower(): factor for name, factor in units.items()}
    if unit not in units and (unit.lower() not in folded or (units is COUNTS and unit == "m")):
        what = f"no unit in {part!r}" if not unit else f"unknown unit {unit!r} in {part!r}"
        example = {id(TIMES): "ms", id(BYTES): "KB"}.get(id(units), "k")
        _refuse(
            f"{what}; {metric} is {LIMITS[metric][1]}", f"write {metric}<{number}{example}; units: {_listed(units)}"
        )
    return units[unit] if unit in units else folded[unit.lower()]


def _maximize(part: str) -> str:
    name = part.partition("=")[2].strip()
    if name not in METRICS:
        part_of = [metric for metric in METRICS if name and name in metric]
        close = get_close_matches(name, METRICS, 1) or part_of or ["accuracy"]
        _refuse(f"cannot maximise {name!r}; a budget may maximise {', '.join(METRICS)}", f"write maximize={close[0]}")
    return name


def _unknown(metric: str, part: str) -> NoReturn:
    aliases = {"latency": "latency_p90", "ram": "memory", "flops": "macs", "parameters": "params", "file": "size"}
    close = [aliases[metric.lower()]] if metric.lower() in aliases else get_close_matches(metric.lower(), LIMITS, 1)
    hint = f"write {part.replace(metric, close[0], 1)}" if close else f"use one of {', '.join(LIMITS)}"
    extra = " (FLOPs = 2 × MACs)" if metric.lower() == "flops" else ""
    _refuse(f"unknown metric {metric!r} in the budget part {part!r}", hint + extra)


def _unreadable(part: str) -> NoReturn:
    word = re.split(r"[<>=\s]", part, maxsplit=1)[0]
    close = get_close_matches(word, NAMED, 1)
    if close and word == part:
        _refuse(f"unknown budget {part!r}; the named ones are {', '.join(NAMED)}", f"use {close[0]}")
    if ">" in part:
        _refuse(f"the budget part {part!r} is no upper bound", "limits are written with <; maximize=... names the goal")
    _refuse(f"cannot read the budget part {part!r}", "write it as metric<number and unit, such as latency_p90<2ms")


def _refuse_twice(metrics: list[str], text: str, named: int) -> None:
    twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
    if twice:
        _refuse(f"{twice[0]!r} stands twice in the budget {text!r}", f"keep one {twice[0]}")
    if named > 1:
        _refuse(f"two named budgets in {text!r}", "name one, and add limits of your own after it")


def _refuse(what: str, do: str) -> NoReturn:
    raise BudgetError(what, do=do)


def _listed(units: Mapping[str, float]) -> str:
    return ", ".join(unit or "none" for unit in units)
