"""Devices: the machines that limits are about. `host` is this one; others are files under FLYWEIGHT_HOME.

What one measured comes as results (`measure.result`): of bundles, and of untrained candidates, by which `fit` chooses.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from flyweight.errors import DeviceError
from flyweight.files import write_json
from flyweight.measure.budget import MEASURED, Budget
from flyweight.measure.result import DeviceModel, DeviceResult, Plain, UntrainedNet
from flyweight.runtime.backends import DEFAULT, ENGINES
from flyweight.runtime.environment import cpu_name, environment, usable_cores, versions

HOST = "host"
IDENTITY = frozenset({"onnxruntime", "onnxruntime-web", "openvino"})  # another version of these is another set-up
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class Device(Plain):
    """A machine: what tells it from others, what runs there, and what was measured on it.

    Attributes:
        fingerprint: Hash of processor, cores, memory and runtimes; another one means another machine or set-up.
        runtimes: Backend to version.
        threads: That latencies are measured with.
        memory_bytes: RAM.
        flash_bytes: Room for the model file; None where it is no concern.
        measurements: Results of `flyweight measure --json` on this device, newest last.
        results: Of the kit or the browser page on this device, newest last.
    """

    name: str = Field(pattern=f"^{NAME.pattern}$")
    description: str = ""
    fingerprint: str = ""
    runtimes: dict[str, str] = Field(default={})
    threads: int = Field(default=1, ge=1)
    memory_bytes: int | None = Field(default=None, gt=0)
    flash_bytes: int | None = Field(default=None, gt=0)
    measurements: tuple[dict[str, Any], ...] = ()
    results: tuple[DeviceResult, ...] = ()

    @property
    def is_host(self) -> bool:
        """True for the machine this runs on."""
        return self.name == HOST

    @property
    def measured(self) -> bool:
        """True where anything was measured on it."""
        return self.is_host or bool(self.measurements or self.results)

    def models(self) -> list[DeviceModel]:
        """Return what was timed, the newest of each file, backend and number of threads."""
        newest: dict[tuple[object, ...], DeviceModel] = {}
        for result in self.results:
            rows = (row for row in result.models if row.problem is None and row.clocks)
            newest |= {(row.candidate or row.sha256, row.precision, row.backend, row.threads): row for row in rows}
        return list(newest.values())

    def timed(self, net: UntrainedNet, precision: str, threads: int) -> DeviceModel | None:
        """Return what this device measured of an untrained network, or None."""
        asked = (net, precision, threads)
        rows = (row for row in self.models() if row.backend == DEFAULT)
        return next((row for row in rows if (row.candidate, row.precision, row.threads) == asked), None)


def host() -> Device:
    """Return this machine."""
    facts = environment()
    runtimes = {name: version for name, version in versions().items() if name in IDENTITY}
    return Device(
        name=HOST,
        description=f"{facts['cpu']}, {facts['cores']} cores, {facts['os']}",
        fingerprint=_fingerprint(cpu_name(), usable_cores(), facts["memory_bytes"], facts["os"], runtimes),
        runtimes=runtimes,
        memory_bytes=facts["memory_bytes"],
    )


def _fingerprint(cpu: str, cores: int, memory_bytes: int | None, system: str, runtimes: Mapping[str, str]) -> str:
    identity = [cpu, cores, memory_bytes, system, sorted(runtimes.items())]
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()


def device_of(result: DeviceResult, name: str | None = None) -> Device:
    """Return the device that a result is of, called `name`, as the result says, or by what the machine is.

    Raises:
        DeviceError: A model gave other answers there than it should, nothing could be measured, or the name is none.
    """
    wrong = [row for row in result.models if row.golden is not None and not row.golden.ok]
    if wrong:
        raise DeviceError(
            f"{wrong[0].name!r} of the bundle {result.bundle.name!r} does not verify there: {wrong[0].problem}",
            do="its times are of no use: copy the kit again, and use a release build of its runtime there",
        )
    if all(not row.clocks for row in result.models):
        raise DeviceError(
            f"nothing was measured on that device: {result.models[0].problem or 'only checked'}",
            do="mend that and run the kit again, without --check",
        )
    facts = result.conditions
    called = name or result.device or _slug(facts.model or facts.cpu)
    if not NAME.fullmatch(called):
        raise DeviceError(
            f"{called!r} cannot be the name of a device", do="use --name with small letters, digits, - _ . (at most 63)"
        )
    used = {row.backend for row in result.models}
    packages = used | {ENGINES[name].package.replace("_", "-") for name in used if name in ENGINES} | IDENTITY
    runtimes = {key: version for key, version in facts.versions.items() if key in packages}
    identity = {key: version for key, version in runtimes.items() if key in IDENTITY}
    return Device(
        name=called,
        description=f"{facts.model or facts.cpu}, {facts.cores} cores, {facts.browser or facts.os}",
        fingerprint=_fingerprint(facts.cpu, facts.cores, facts.memory_bytes, facts.os, identity),
        runtimes=runtimes,
        threads=result.models[0].threads,
        memory_bytes=facts.memory_bytes,
        results=(result,),
    )


def add_result(result: DeviceResult, *, name: str | None = None, replace: bool = False) -> Device:
    """Keep a result with the device it is of, which is made where there is none of that name, and return that.

    Args:
        replace: Forget what the device of that name was before.

    Raises:
        DeviceError: As `device_of`; or the name belongs to a machine of another fingerprint.
        OutputError: The folder cannot be written.
    """
    found = device_of(result, name)
    if not replace and (home() / "devices" / f"{found.name}.json").exists():
        old = load_device(found.name)
        if old.fingerprint not in ("", found.fingerprint):
            raise DeviceError(
                f"the device {found.name!r} is another machine, or has another system or runtime now: it was "
                f"{old.description} with {_listed(old.runtimes)}, the result is of {found.description} with "
                f"{_listed(found.runtimes)}",
                do="choose another name with --name, or forget the old numbers with --replace",
            )
        kept = tuple(one for one in old.results if one.sha256 != result.sha256)
        fresh = {"fingerprint": found.fingerprint, "runtimes": found.runtimes, "results": (*kept, result)}
        described = {} if old.description else {"description": found.description}
        found = old.model_copy(update={**fresh, **described})
    add_device(found, replace=True)
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "device"


def _listed(runtimes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(runtimes.items())) or "no known runtime"


def home() -> Path:
    """Return the folder of the user's settings: FLYWEIGHT_HOME or ~/.config/flyweight."""
    given = os.environ.get("FLYWEIGHT_HOME")
    return Path(given) if given else Path.home() / ".config" / "flyweight"


def list_devices() -> list[Device]:
    """Return this machine and every device that was added, by name. Raises DeviceError on a damaged file."""
    return [host(), *(_read(path) for path in sorted((home() / "devices").glob("*.json")))]


def load_device(name: str) -> Device:
    """Return a device by name.

    Raises:
        DeviceError: There is none of that name; the message has a close match.
    """
    if name == HOST:
        return host()
    path = home() / "devices" / f"{name}.json"
    if NAME.fullmatch(name) and path.is_file():
        return _read(path)
    known = [HOST, *(found.stem for found in sorted((home() / "devices").glob("*.json")))]
    close = get_close_matches(name, known, 1)
    hint = f"use --device {close[0]}, or " if close else ""
    raise DeviceError(
        f"there is no device {name!r}; known: {', '.join(known)}",
        do=f"{hint}add it: flyweight device add result.json --name {name or 'NAME'}",
    )


def add_device(device: Device, *, replace: bool = False) -> Path:
    """Keep a device under its name and return its file.

    Raises:
        DeviceError: The name is `host`, or is taken and `replace` is not set.
        OutputError: The folder cannot be written.
    """
    path = home() / "devices" / f"{device.name}.json"
    if device.is_host:
        raise DeviceError("'host' always means this machine", do="choose another name for the device")
    if path.exists() and not replace:
        raise DeviceError(f"the device {device.name!r} exists already", do="choose another name, or add --replace")
    write_json(path, device.model_dump(mode="json"))
    return path


def add_measurement(device: Device, measurement: dict[str, Any]) -> Device:
    """Return the device with one more measurement, kept on disk. Raises OutputError."""
    grown = device.model_copy(update={"measurements": (*device.measurements, measurement)})
    add_device(grown, replace=True)
    return grown


def refuse_unmeasured(budget: Budget, device: Device) -> None:
    """Refuse limits on the clock or memory of a device that nothing was measured on.

    Raises:
        DeviceError: Naming the limits; this machine's clock never stands in for another's.
    """
    limits = [limit.text for limit in budget.limits if limit.metric in MEASURED]
    if limits and not device.measured:
        raise DeviceError(
            f"nothing has been measured on the device {device.name!r}, so {', '.join(limits)} cannot be checked for it",
            do=f"flyweight kit BUNDLE --candidates --name {device.name}, run it there and flyweight device add "
            "result.json; or limit size, params and macs only",
            more="docs/devices.md",
        )


def refuse_elsewhere(budget: Budget, what: str) -> None:
    """Refuse limits on the clock or memory of another device where only this machine's are measured.

    Args:
        what: Which command measures.

    Raises:
        DeviceError: Naming the limits.
    """
    limits = [limit.text for limit in budget.limits if limit.metric in MEASURED]
    if limits and budget.device != HOST:
        raise DeviceError(
            f"{what} times on this machine, and {', '.join(limits)} is for the device {budget.device!r}",
            do="limit size, params and macs there; flyweight fit --device takes the device's own times",
            more="docs/devices.md",
        )


def _read(path: Path) -> Device:
    try:
        return Device.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DeviceError(
            f"the device file {str(path)!r} cannot be read: {reason}", do=f"remove it and add {path.stem} again"
        ) from error
