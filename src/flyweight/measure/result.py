"""What a device says it measured: the one file that the kit and the browser page write and `device add` reads.

Samples travel raw, in ns and none left out; quantiles and intervals are taken of them here, as of this machine's own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.errors import DeviceError
from flyweight.measure.latency import FULL_N, LatencyResult, latency_of, noise_floor
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.canonical import HASH, seal
from flyweight.runtime.hashes import digest_of
from flyweight.runtime.timing import MODEL, Spec

RESULT_VERSION = 1


class Plain(BaseModel):
    """What all parts have in common: nothing unknown, nothing that changes, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DeviceState(Plain):
    """What the system tells about the processor's pace; null where it does not.

    Attributes:
        throttled: What holds the processor back now, or has since it was started; empty where nothing does.
    """

    governor: str | None = None
    frequency_mhz: float | None = None
    max_frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None


class DeviceConditions(Plain):
    """Where and how it was measured.

    Attributes:
        model: Of the board or phone, where it says.
        browser: Of a measurement in one.
        clock_resolution_ns: The smallest step of its clock, where that is coarse.
        before: The state when it began, and `after` when it ended.
    """

    cpu: str
    cores: int = Field(ge=1)
    os: str
    versions: dict[str, str]
    date: str
    command: str
    machine: str = ""
    model: str | None = None
    memory_bytes: int | None = Field(default=None, gt=0)
    load_average: float | None = None
    python: str | None = None
    browser: str | None = None
    clock_resolution_ns: int | None = None
    before: DeviceState = DeviceState()
    after: DeviceState = DeviceState()


class TimedRuns(Plain):
    """One process (of a browser: one worker) by one clock.

    Attributes:
        samples_ns: Every run in order, none left out.
        steady: Whether the warm-up ended because the runs had become alike.
        cpu_share: Processor time over wall time; null where it cannot be read.
    """

    samples_ns: tuple[int, ...] = Field(min_length=1)
    steady: bool
    warmup_runs: int = Field(ge=0)
    cpu_share: float | None = None


class Golden(Plain):
    """Whether the device gives the golden logits; `max_error` is null where a logit is not finite."""

    ok: bool
    n: int
    max_error: float | None
    tolerance: float


class PeakMemory(Plain):
    """Of fresh processes, in bytes: with the model, of an empty runner, and the difference."""

    peak_bytes: int
    empty_bytes: int
    increment_bytes: int
    processes: int


class UntrainedNet(Plain):
    """Which network a file is that has no trained weights: `channels` in, `num_classes` out."""

    model: str
    image_size: int
    channels: int
    num_classes: int


class DeviceModel(Plain):
    """One model file on the device.

    Attributes:
        name: Of the bundle's variant, or of the candidate.
        sha256: Of the file.
        candidate: Which network, where the file is untrained.
        params: Counted where the kit was made; `macs` too.
        golden: Null for candidates, which have none.
        clocks: By clock (`model`, `preprocess_model`, `encoded`): one entry per process.
        again: The model clock once more, as if it were another file: the noise floor.
        enough: With fewer samples than this only p50 is given.
        problem: Why it was not measured, or not whole.
    """

    name: str
    kind: Literal["variant", "candidate"] = "variant"
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(gt=0)
    format: str = "onnx"
    precision: str = "fp32"
    backend: str = "onnxruntime"
    threads: int = Field(ge=1)
    candidate: UntrainedNet | None = None
    params: int | None = None
    macs: int | None = None
    golden: Golden | None = None
    clocks: dict[str, tuple[TimedRuns, ...]] = {}
    again: tuple[TimedRuns, ...] = ()
    enough: int = FULL_N
    memory: PeakMemory | None = None
    problem: str | None = None

    def latency(self, clock: str = MODEL) -> LatencyResult | None:
        """Return the latency by a clock, batch 1, or None where it was not taken."""
        runs = self.clocks.get(clock)
        if not runs:
            return None
        spec = Spec(self.name, self.backend, self.threads)
        found = latency_of(self.name, clock, spec, [{clock: run.model_dump()} for run in runs], self.enough)
        if clock != MODEL or not self.again:
            return found
        again = latency_of(self.name, clock, spec, [{clock: run.model_dump()} for run in self.again])
        return replace(found, noise_floor=noise_floor((*found.process_medians_ms, *again.process_medians_ms)))

    def budget_values(self) -> dict[str, float | None]:
        """Return what a budget limits and this device measured: ms and bytes; None where it did not."""
        found, memory = self.latency(), self.memory
        return {
            "latency_p50": None if found is None else found.p50_ms,
            "latency_p90": None if found is None else found.p90_ms,
            "latency_p99": None if found is None else found.p99_ms,
            "memory": None if memory is None else float(memory.peak_bytes),
            "memory_increment": None if memory is None else float(memory.increment_bytes),
        }

    def summary(self) -> dict[str, Any]:
        """Return the latency (ms: quantile and its 95 % interval) and memory (bytes), flat."""
        found = self.latency()
        told: dict[str, Any] = {"backend": self.backend}
        if found is not None:
            quantiles = {f"p{q * 100:g}_ms": found.quantile(q) for q in (0.5, 0.9, 0.99)}
            told |= {key: [one.ms, one.low_ms, one.high_ms] for key, one in quantiles.items() if one.ms is not None}
            told |= {"n": found.n, "steady": found.steady, "disturbed": found.disturbed}
        return told | ({"memory_peak_bytes": self.memory.peak_bytes} if self.memory else {})


class MeasuredBundle(Plain):
    """Which bundle: its name and the SHA-256 of its SHA256SUMS."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class DeviceResult(Plain):
    """Everything one run on a device found.

    Attributes:
        device: The name that was planned for the device, if any.
        sha256: Of the canonical JSON (RFC 8785) of all other keys: edited numbers are noticed. It proves no author.
    """

    result_version: Literal[1] = 1
    made_by: Literal["kit", "web"]
    flyweight_version: str
    device: str | None = None
    bundle: MeasuredBundle
    conditions: DeviceConditions
    models: tuple[DeviceModel, ...] = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def of_bundle(self, bundle: Bundle) -> dict[str, Any]:
        """Return what was measured of the bundle's own files, for its card.

        Raises:
            DeviceError: None of its files is among those measured.
        """
        names = {digest_of((one.file, *one.beside)): name for name, one in bundle.variants.items()}
        rows = {f"{names[row.sha256]}, {row.threads} thread(s)": row for row in self.models if row.sha256 in names}
        if not rows:
            raise DeviceError(
                f"the result is of the bundle {self.bundle.name!r}, and none of its files is in {bundle.name!r}",
                do="name the bundle that the kit was made of",
            )
        return {
            "measured": {name: row.summary() for name, row in rows.items()},
            "conditions": self.conditions.model_dump(mode="json", exclude_none=True),
            "result_sha256": self.sha256,
        }


def read_result(path: Path) -> DeviceResult:
    """Return the result in a file.

    Raises:
        DeviceError: It cannot be read, is cut off, edited, of another version, or no result.
    """
    name = repr(str(path))
    try:
        content = json.loads(path.read_text("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise DeviceError(
            f"cannot read {name}: {(error.strerror or str(error)).lower()}", do="give the JSON file that the kit wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DeviceError(
            f"{name} ({path.stat().st_size} bytes) is no whole JSON file: {error}", do="copy it from the device again"
        ) from error
    return check_result(content, name)


def check_result(content: Any, name: str) -> DeviceResult:
    """Return plain values as a result; `name` is what errors call it. Raises DeviceError, as `read_result`."""
    if not isinstance(content, dict) or "result_version" not in content:
        raise DeviceError(
            f"{name} is no result of a device: it has no result_version",
            do="give what python run.py of the kit wrote, or what the page of flyweight web downloaded",
        )
    if content["result_version"] != RESULT_VERSION:
        raise DeviceError(
            f"{name} has the result_version {content['result_version']!r}, made by flyweight "
            f"{content.get('flyweight_version', 'of no stated version')!r}; this flyweight reads {RESULT_VERSION}",
            do="make the kit again with this flyweight and run it on the device, or use the flyweight that made it",
        )
    try:
        found = seal(content)[HASH]
    except ValueError as error:
        raise DeviceError(f"{name} is no valid result: {error}", do="copy it from the device again") from error
    if content.get(HASH) != found:
        raise DeviceError(
            f"{name} has changed since it was measured: its sha256 says {content.get(HASH)}, its content has {found}",
            do="copy it from the device again, or run the kit again; numbers are not edited by hand",
        )
    try:
        return DeviceResult.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DeviceError(
            f"{name} is no valid result: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            do="make it again; docs/schemas/result.json says what belongs in it",
        ) from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")
