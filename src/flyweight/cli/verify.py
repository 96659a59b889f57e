"""`flyweight verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.progress import need_train_extra
from flyweight.measure.verify import Verified, verify_and_score
from flyweight.measure.verify import verify as run_verify


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    data: Annotated[
        str | None, typer.Option(help="Data set to measure accuracy on: its official test part, else the bundle's.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write that accuracy into bundle.json and card; logs the test part's use.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="With --record: the bundle to write; BUNDLE itself without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute a bundle's hashes, golden vectors and, with data, accuracy. Exit code 1 when anything disagrees."""
    _check_record(record, data, out)
    found = _recorded(bundle, data, variant, out) if record else run_verify(bundle, data, variant)
    if as_json:
        print(found.model_dump_json())
    else:
        print("\n".join(lines(found)))
    for failure in found.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if not found.ok:
        raise typer.Exit(1)


def _check_record(record: bool, data: str | None, out: Path | None) -> None:
    if record and data is None:
        raise typer.BadParameter("goes with --data: an accuracy is recorded", param_hint="'--record'")
    if out is not None and not record:
        raise typer.BadParameter("goes with --record", param_hint="'--out'")


def _recorded(path: Path, data: str | None, variant: str | None, out: Path | None) -> Verified:
    """Test a variant, and write what was found into the bundle, unless something disagrees."""
    need_train_extra()
    from flyweight.data.split import open_test
    from flyweight.export.bundle import record_accuracy
    from flyweight.runtime.bundle import Bundle

    opened, target = Bundle.open(path), out or path
    chosen = opened.variant(variant)
    open_test(target.parent / "test-openings.jsonl", why=f"verify --record: {opened.name} {chosen.name}")
    found, scored = verify_and_score(opened, data, chosen.name)
    if found.ok and scored is not None:
        record_accuracy(opened, scored.to_json(), target, chosen.name)
        print(f"recorded: {target}, variant {chosen.name}", file=sys.stderr)
    return found


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
