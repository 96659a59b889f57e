"""Devices: the machines that limits are about. `host` is this one; others are files under FLYWEIGHT_HOME."""

from __future__ import annotations

import hashlib
import json
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.errors import DeviceError
from flyweight.files import write_json
from flyweight.measure.budget import MEASURED, Budget
from flyweight.runtime.environment import cpu_name, environment, usable_cores, versions

HOST = "host"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class Device(BaseModel):
    """A machine: what tells it from others, what runs there, and what was measured on it.

    Attributes:
        fingerprint: Hash of processor, cores, memory and runtimes; another one means another machine or set-up.
        runtimes: Backend to version.
        threads: That latencies are measured with.
        memory_bytes: RAM.
        flash_bytes: Room for the model file; None where it is no concern.
        measurements: Results of `flyweight measure --json` on this device, newest last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=f"^{NAME.pattern}$")
    description: str = ""
    fingerprint: str = ""
    runtimes: dict[str, str] = {}
    threads: int = Field(default=1, ge=1)
    memory_bytes: int | None = Field(default=None, gt=0)
    flash_bytes: int | None = Field(default=None, gt=0)
    measurements: tuple[dict[str, Any], ...] = ()

    @property
    def is_host(self) -> bool:
        """True for the machine this runs on."""
        return self.name == HOST


def host() -> Device:
    """Return this machine."""
    facts = environment()
    runtimes = {name: version for name, version in versions().items() if name in {"onnxruntime", "openvino"}}
    identity = [cpu_name(), usable_cores(), facts["memory_bytes"], facts["os"], sorted(runtimes.items())]
    return Device(
        name=HOST,
        description=f"{facts['cpu']}, {facts['cores']} cores, {facts['os']}",
        fingerprint=hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest(),
        runtimes=runtimes,
        memory_bytes=facts["memory_bytes"],
    )


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
        f"there is no device {name!r}; known: {', '.join(known)}", do=f"{hint}add it: flyweight device add {name}"
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
    if limits and not device.is_host and not device.measurements:
        raise DeviceError(
            f"nothing has been measured on the device {device.name!r}, so {', '.join(limits)} cannot be checked for it",
            do=f"run flyweight measure BUNDLE --json there and add it: flyweight device add {device.name} "
            "--measurement FILE --replace; or limit size, params and macs only",
        )


def _read(path: Path) -> Device:
    try:
        return Device.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DeviceError(
            f"the device file {str(path)!r} cannot be read: {reason}", do=f"remove it and add {path.stem} again"
        ) from error
