"""`flyweight measure`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight.cli.verify import lines
from flyweight.measure.device import add_measurement, load_device
from flyweight.measure.speed import Measurement
from flyweight.measure.speed import measure as run_measure

CLOCKS = {"model": "model only", "preprocess_model": "resize + model", "encoded": "from JPEG bytes"}


def measure(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    data: Annotated[str | None, typer.Option(help="Measure accuracy too, as verify does.")] = None,
    quick: Annotated[bool, typer.Option(help="Fewer and shorter processes, no noise floor.")] = False,
    save_as: Annotated[
        str | None, typer.Option(help="Keep the result with this device (see flyweight device).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time a bundle on this machine: latency by three clocks, throughput and memory, in fresh processes."""
    device = load_device(save_as) if save_as else None
    found = run_measure(bundle, threads=threads, variant=variant, data=data, quick=quick)
    if device is not None:
        add_measurement(device, found.model_dump(mode="json"))
    print(found.model_dump_json() if as_json else "\n".join([*lines(found), *_speed_lines(found)]))
    for failure in found.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if not found.ok:
        raise typer.Exit(1)


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
