"""`flyweight verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flyweight.measure.verify import Verified
from flyweight.measure.verify import verify as run_verify


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    data: Annotated[
        str | None, typer.Option(help="Data set to measure accuracy on: its official test part, else the bundle's.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute a bundle's hashes, golden vectors and, with data, accuracy. Exit code 1 when anything disagrees."""
    found = run_verify(bundle, data, variant)
    if as_json:
        print(found.model_dump_json())
    else:
        print("\n".join(lines(found)))
    for failure in found.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if not found.ok:
        raise typer.Exit(1)


def lines(found: Verified) -> list[str]:
    """Return what is shown to people."""
    golden = "as recorded" if found.golden_ok else "DIFFERENT"
    rows = [
        f"{found.name}, variant {found.variant} ({found.precision}, {found.backend})",
        "hashes     every file is as it was written",
        f"golden     {golden}: {found.golden_n} images, largest difference {found.golden_max_error} "
        f"(tolerance {found.golden_tolerance:g})",
        f"counted    {found.params:,} parameters, {found.macs:,} MACs, "
        f"{found.peak_activation_bytes:,} bytes of activations",
        f"size       {found.size_bytes:,} bytes, {len(found.classes)} classes",
    ]
    return [*rows, *accuracy_lines(found)]


def accuracy_lines(found: Verified) -> list[str]:
    """Return the accuracy of the shipped file, or how to get it."""
    if found.accuracy is None:
        return ["accuracy   not measured; add --data PATH"]
    card = {True: "as recorded", False: "NOT as recorded", None: "nothing recorded to compare with"}
    return [
        f"accuracy   {found.accuracy:.2%} (95 %: {found.accuracy_low:.2%} to {found.accuracy_high:.2%}) of {found.n:,} "
        f"images, {found.part}; {card[found.matches_card]}",
        "           the bytes are frozen: this checked the test part again, and nothing was chosen by it",
        f"           balanced {found.balanced_accuracy:.2%}, macro F1 {found.macro_f1:.3f}, worst class "
        f"{found.min_recall:.2%}, calibration error {found.ece:.3f}",
    ]
