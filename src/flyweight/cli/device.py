"""`flyweight device`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flyweight.errors import DeviceError
from flyweight.measure.device import Device, add_device, list_devices, load_device

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The machines that budgets may name.")


@app.command("list")
def list_all(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False) -> None:
    """List this machine and the devices that were added."""
    devices = list_devices()
    if as_json:
        print(json.dumps([device.model_dump(mode="json") for device in devices]))
        return
    for device in devices:
        known = "measured here" if device.is_host else f"{len(device.measurements)} measurement(s)"
        print(f"{device.name:<16} {known:<18} {device.description}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of the device; host is this machine.")]) -> None:
    """Print a device as JSON."""
    print(load_device(name).model_dump_json(indent=2))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Small letters, digits, - _ .")],
    description: Annotated[str, typer.Option(help="What it is.")] = "",
    memory_mb: Annotated[int | None, typer.Option(min=1, help="RAM, MB.")] = None,
    flash_kb: Annotated[int | None, typer.Option(min=1, help="Room for the model file, KB.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads it measures with.")] = 1,
    measurement: Annotated[
        list[Path] | None, typer.Option(help="Output of flyweight measure --json on that device; may be repeated.")
    ] = None,
    replace: Annotated[bool, typer.Option(help="Replace a device of that name.")] = False,
) -> None:
    """Add a device, with what was measured on it."""
    from pydantic import ValidationError

    try:
        device = Device(
            name=name,
            description=description,
            threads=threads,
            memory_bytes=None if memory_mb is None else memory_mb * 10**6,
            flash_bytes=None if flash_kb is None else flash_kb * 1000,
            measurements=tuple(_measurement(path) for path in measurement or ()),
        )
    except ValidationError as error:
        raise DeviceError(
            f"{name!r} cannot be the name of a device", do="use small letters, digits, - _ . and at most 63 of them"
        ) from error
    print(add_device(device, replace=replace))


def _measurement(path: Path) -> dict[str, object]:
    from flyweight.measure.speed import Measurement

    try:
        return Measurement.model_validate_json(path.read_bytes()).model_dump(mode="json")
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{str(path)!r} is no measurement: {str(error).splitlines()[0]}",
            do="make it on the device: flyweight measure BUNDLE --json > FILE",
        ) from error
