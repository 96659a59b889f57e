"""`flyweight device`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight.errors import DeviceError
from flyweight.measure.device import Device, add_device, add_result, list_devices, load_device
from flyweight.measure.result import DeviceModel, DeviceResult, read_result

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The machines that budgets may name.")


@app.command("list")
def list_all(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False) -> None:
    """List this machine and the devices that were added."""
    devices = list_devices()
    if as_json:
        print(json.dumps([device.model_dump(mode="json") for device in devices]))
        return
    for device in devices:
        print(f"{device.name:<16} {_known(device):<28} {device.description}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the device; host is this machine.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, samples and all, as JSON.")] = False,
) -> None:
    """Show a device: what it is, how it was measured, and every model that it timed."""
    device = load_device(name)
    print(device.model_dump_json(indent=2) if as_json else "\n".join(_lines(device)))


@app.command()
def add(
    what: Annotated[str, typer.Argument(help="A result.json of the kit or the browser page; or a new device's name.")],
    name: Annotated[str | None, typer.Option(help="Of a result: what to call the device.")] = None,
    description: Annotated[str, typer.Option(help="What it is.")] = "",
    memory_mb: Annotated[int | None, typer.Option(min=1, help="RAM, MB.")] = None,
    flash_kb: Annotated[int | None, typer.Option(min=1, help="Room for the model file, KB.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads it measures with.")] = 1,
    measurement: Annotated[
        list[Path] | None, typer.Option(help="Output of flyweight measure --json on that device; may be repeated.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Of a result: write its times into this bundle's card, too.")
    ] = None,
    replace: Annotated[bool, typer.Option(help="Replace a device of that name.")] = False,
) -> None:
    """Add a device from the result that it sent, or by its name with what is known of it."""
    own: dict[str, Any] = {
        "description": description or None,
        "memory_bytes": None if memory_mb is None else memory_mb * 10**6,
        "flash_bytes": None if flash_kb is None else flash_kb * 1000,
    }
    own = {key: value for key, value in own.items() if value is not None}
    if not what.endswith(".json") and not Path(what).is_file():
        found = (_measurement(path) for path in measurement or ())
        print(add_device(_named(what, threads, tuple(found), own), replace=replace))
        return
    result = read_result(Path(what))
    if bundle is not None:
        _check(bundle, result)
    device = add_result(result, name=name, replace=replace)
    if own:
        device = device.model_copy(update=own)
        add_device(device, replace=True)
    if bundle is not None:
        _record(bundle, device, result)
    print("\n".join(_lines(device)))
    print(f"next      flyweight fit DATA --budget latency_p90<5ms@{device.name}")


@app.command()
def pick(
    name: Annotated[str, typer.Argument(help="Name of the device.")],
    bundle: Annotated[Path, typer.Argument(help="Bundle, as the device timed it.")],
    data: Annotated[str, typer.Option(help="What it was trained on: validation images decide on accuracy.")],
    out: Annotated[Path, typer.Option(help="Where the bundle goes that runs fastest there.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the variant and number of threads that a device ran fastest, with no accuracy lost, a bundle's default."""
    from flyweight.cli.progress import need_train_extra

    need_train_extra()
    from flyweight.data.sources import load_data
    from flyweight.export.bundle import run_as
    from flyweight.measure.elsewhere import timed_variants
    from flyweight.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    found = timed_variants(opened, load_device(name), load_data(data, group=opened.split.get("group")))
    chosen = next((one for one in found[1:] if one.ships), found[0])
    run_as(opened, chosen.variant, chosen.threads, out)
    rows = [
        {
            "variant": one.variant,
            "threads": one.threads,
            "p50_ms": one.latency.p50_ms,
            "ships": one.ships,
            "because": one.because,
        }
        for one in found
    ]
    if as_json:
        print(json.dumps({"device": name, "variant": chosen.variant, "threads": chosen.threads, "rows": rows}))
        return
    for row in rows:
        mark = "ships" if (row["variant"], row["threads"]) == (chosen.variant, chosen.threads) else "     "
        print(f"{mark}  {row['variant']:<22} {row['threads']} thread(s)  {row['p50_ms']:8.3g} ms  {row['because']}")
    print(f"bundle    {out}: {chosen.variant} with {chosen.threads} thread(s) by default, fastest on {name}")


def _named(name: str, threads: int, measurements: tuple[dict[str, object], ...], own: dict[str, Any]) -> Device:
    from pydantic import ValidationError

    try:
        return Device(name=name, threads=threads, measurements=measurements, **own)
    except ValidationError as error:
        raise DeviceError(
            f"{name!r} cannot be the name of a device", do="use small letters, digits, - _ . and at most 63 of them"
        ) from error


def _check(bundle: Path, result: DeviceResult) -> None:
    """Refuse a bundle that the result is not of, before the device is stored."""
    from flyweight.cli.progress import need_train_extra

    need_train_extra()
    from flyweight.runtime.bundle import Bundle

    result.of_bundle(Bundle.open(bundle))


def _record(bundle: Path, device: Device, result: DeviceResult) -> None:
    from flyweight.export.bundle import record_device
    from flyweight.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    record_device(opened, device.name, result.of_bundle(opened), bundle)


def _known(device: Device) -> str:
    if device.is_host:
        return "measured here"
    models = device.models()
    variants = sum(row.kind == "variant" for row in models)
    said = f"{variants} models, {len(models) - variants} candidates"
    return said if device.results else f"{len(device.measurements)} measurement(s)"


def _lines(device: Device) -> list[str]:
    rows = [f"device    {device.name}: {device.description or 'no description'}"]
    rows += [f"memory    {device.memory_bytes / 1e6:,.0f} MB"] if device.memory_bytes else []
    rows += [f"flash     {device.flash_bytes / 1e3:,.0f} kB"] if device.flash_bytes else []
    rows += [f"runtimes  {', '.join(f'{name} {version}' for name, version in sorted(device.runtimes.items()))}"]
    if device.results:
        rows += _conditions(device.results[-1])
    rows += [f"measured  {_known(device)}"]
    return [*rows, *map(_model_line, sorted(device.models(), key=lambda row: (row.kind != "variant", row.name)))]


def _conditions(result: DeviceResult) -> list[str]:
    facts = result.conditions
    before, after = facts.before, facts.after
    told = [f"governor {before.governor}"] if before.governor else []
    if before.temperature_c is not None and after.temperature_c is not None:
        told.append(f"{before.temperature_c:.0f} to {after.temperature_c:.0f} °C")
    if before.frequency_mhz is not None and before.max_frequency_mhz is not None:
        told.append(f"{before.frequency_mhz:.0f} of {before.max_frequency_mhz:.0f} MHz")
    held = sorted({*(before.throttled or ()), *(after.throttled or ())})
    told += [f"HELD BACK: {', '.join(held)}"] if held else []
    pace = ", ".join(told) or "governor, temperature and throttling are not told"
    return [f"date      {facts.date}, by the {result.made_by}, bundle {result.bundle.name}", f"pace      {pace}"]


def _model_line(row: DeviceModel) -> str:
    found = row.latency()
    values = row.budget_values()
    shown = ", ".join(
        f"{q} {value:.3g} ms" for q in ("p50", "p90", "p99") if (value := values[f"latency_{q}"]) is not None
    )
    memory = f", {row.memory.peak_bytes / 1e6:.0f} MB" if row.memory else ""
    warned = "" if found is None or found.steady else ", not steady"
    warned += ", DISTURBED by other programs" if found is not None and found.disturbed else ""
    return f"  {row.name:<34} {row.backend}, {row.threads} thread(s): {shown or 'not timed'}{memory}{warned}"


def _measurement(path: Path) -> dict[str, object]:
    from flyweight.measure.speed import Measurement

    try:
        return Measurement.model_validate_json(path.read_bytes()).model_dump(mode="json")
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{str(path)!r} is no measurement: {str(error).splitlines()[0]}",
            do="make it on the device: flyweight measure BUNDLE --json > FILE",
        ) from error
