"""`flyweight measure`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight.cli.sweep import numbers, sweep, words
from flyweight.cli.verify import lines
from flyweight.measure.budget import duration_ms
from flyweight.measure.device import add_measurement, load_device
from flyweight.measure.speed import Measurement
from flyweight.measure.speed import measure as run_measure
from flyweight.runtime.load import OFFLINE, SERVER

CLOCKS = {"model": "model only", "preprocess_model": "resize + model", "encoded": "from JPEG bytes"}


def measure(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip. For a sweep an .onnx file too.")],
    threads: Annotated[str, typer.Option(help="Threads of the model; several for a sweep, such as 1,2.")] = "1",
    variant: Annotated[
        str | None, typer.Option(help="Model file of the bundle; its default without, all of them in a sweep.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Measure accuracy too, as verify does.")] = None,
    quick: Annotated[bool, typer.Option(help="Fewer and shorter processes, no noise floor.")] = False,
    save_as: Annotated[
        str | None, typer.Option(help="Keep the result with this device (see flyweight device).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    batch: Annotated[str | None, typer.Option(help="Sweep over batch sizes, such as 1,2,4,8.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Sweep over backends: all, or names (repeat, or separated by commas).")
    ] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help="MLPerf's loads: single-stream, multi-stream, server, offline.")
    ] = None,
    bound: Annotated[str | None, typer.Option(help="Of the latency's p99 under server, such as 5ms.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="That answer server's and offline's queries, --threads each; 1 without.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="For the whole sweep; what does not fit is left out and named.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html and report.json of a sweep.")] = None,
) -> None:
    """Time a bundle on this machine: latency by three clocks, throughput and memory, in fresh processes.

    With --batch, --backend, --scenario or several --threads: a sweep, docs/measuring.md.
    """
    counts = numbers(threads, "--threads")
    if batch is not None or backend or scenario or len(counts) > 1:
        loads = words(scenario)
        _refuse({"--data": data, "--save-as": save_as}, "does not go with a sweep")
        _refuse({} if SERVER in loads else {"--bound": bound}, "goes with --scenario server")
        _refuse(
            {} if {SERVER, OFFLINE} & {*loads} else {"--workers": workers}, "goes with --scenario server or offline"
        )
        sweep(
            bundle, out, as_json=as_json, threads=counts, variant=variant, backends=words(backend),
            batches=_sizes(batch, scenario), scenarios=loads,
            bound_ms=duration_ms(bound) if bound else None, workers=workers or 1, minutes=minutes, quick=quick,
        )  # fmt: skip
        return
    only = {"--bound": bound, "--workers": workers, "--minutes": minutes, "--out": out}
    _refuse(only, "goes with --batch, --backend or --scenario")
    device = load_device(save_as) if save_as else None
    found = run_measure(bundle, threads=counts[0], variant=variant, data=data, quick=quick)
    if device is not None:
        add_measurement(device, found.model_dump(mode="json"))
    print(found.model_dump_json() if as_json else "\n".join([*lines(found), *_speed_lines(found)]))
    for failure in found.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if not found.ok:
        raise typer.Exit(1)


def _sizes(batch: str | None, scenario: list[str] | None) -> tuple[int, ...]:
    """Return the batches of the table: batch 1 where only backends or threads were asked for, none where only loads."""
    if batch is None:
        return () if scenario else (1,)
    return numbers(batch, "--batch")


def _refuse(options: dict[str, Any], why: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise typer.BadParameter(why, param_hint=f"'{given[0]}'")


def _speed_lines(found: Measurement) -> list[str]:
    rows = [f"latency    batch 1, {found.threads} thread(s); 95 % intervals in brackets"]
    for clock, text in CLOCKS.items():
        result = found.latency[clock]
        shown = ", ".join(f"{name} {_quantile(result[name])}" for name in ("p50", "p90", "p99"))
        rows.append(f"           {text:<16} {shown} (n {result['n']}{'' if result['steady'] else ', not steady'})")
    if found.latency["model"]["disturbed"]:
        share = 1 - found.latency["model"]["cpu_share"]
        rows.append(f"           DISTURBED: other programs had the processor {share:.0%} of the time; measure again")
    if found.noise_floor is not None:
        rows.append(f"           this machine tells apart differences above {found.noise_floor:.1%}")
    rates = ", ".join(f"{row.images_per_second:,.0f}/s at {row.batch}" for row in found.throughput)
    memory = (
        f"{found.memory_peak_bytes / 1e6:.1f} MB at most, {found.memory_increment_bytes / 1e6:.1f} MB of it the model's"
    )
    return [*rows, f"throughput {rates} images a batch", f"memory     {memory}"]


def _quantile(row: dict[str, Any]) -> str:
    if row["ms"] is None:
        return f"none ({row['reason']})"
    return f"{row['ms']:.3g} ms [{row['low_ms']:.3g}, {row['high_ms']:.3g}]"
