"""`flyweight reject`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.errors import DataError

if TYPE_CHECKING:
    from flyweight.measure.reject import Rejection


def reject(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    data: Annotated[str, typer.Option(help="Data set that it was trained on.")],
    unlike: Annotated[
        list[str] | None, typer.Option(help="Images that belong to none of its classes, any source (repeat).")
    ] = None,
    keep: Annotated[float, typer.Option(help="Share of the validation images that is to get an answer.")] = 0.95,
    part: Annotated[str, typer.Option(help="Where the cost is counted: val, or test (logged beside OUT).")] = "val",
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the bundle with that threshold here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose the confidence below which a bundle gives no answer; say what that refuses of known and other images."""
    from flyweight.data.sources import load_data
    from flyweight.data.split import open_test
    from flyweight.export.bundle import with_threshold
    from flyweight.measure.reject import SHARES, pictures, rejection
    from flyweight.runtime.bundle import Bundle

    if not 0 < keep < 1:
        raise DataError(f"--keep {keep:g} is no share of the images", do="give one between 0 and 1, such as 0.95")
    if part not in ("val", "test"):
        raise DataError(f"--part {part!r} is neither val nor test", do="use --part val")
    opened = Bundle.open(bundle)
    dataset = load_data(data, group=opened.split.get("group"))
    if part == "test":
        log = (out or bundle).parent / "test-openings.jsonl"
        open_test(log, why=f"reject {opened.name}: cost of thresholds chosen on validation")
    found = rejection(
        opened,
        dataset,
        [pictures(one) for one in unlike or ()],
        shares=tuple(sorted({keep, *SHARES}, reverse=True)),
        part="test" if part == "test" else "val",
        variant=variant,
    )
    if out is not None:
        with_threshold(opened, found.at(keep).confidence, found.model_dump(mode="json"), out)
    if as_json:
        print(found.model_dump_json())
        return
    print("\n".join(lines(found, keep)))
    print(
        f"bundle     {out}: no answer below {found.at(keep).confidence:.3f}"
        if out is not None
        else f"next       flyweight reject {bundle} --data {data} --keep {keep:g} --out BUNDLE"
    )


def lines(found: Rejection, keep: float) -> list[str]:
    """Return what is shown to people."""
    rows = [
        f"{found.name}, variant {found.variant}: {100 * found.accuracy.value:.2f} % of {found.accuracy.n:,} images "
        f"right, {found.part}",
        "",
        f"{'below':>7}  {'answered':>8}  {'of these right':>14}"
        + "".join(f"  {one.name[:16]:>16}" for one in found.unlike),
    ]
    for place, one in enumerate(found.thresholds):
        right = "–" if one.accuracy is None else f"{100 * one.accuracy.value:.2f} %"
        others = "".join(f"  {f'{100 * other.answered[place].value:.1f} %':>16}" for other in found.unlike)
        mark = "  <- --keep" if one.share == keep else ""
        rows.append(f"{one.confidence:7.3f}  {100 * one.answered.value:6.1f} %  {right:>14}{others}{mark}")
    rows += [
        "",
        "thresholds were chosen on the validation images; of the other data sets stands what is answered all the same",
    ]
    rows += [
        f"{other.name}: {other.n:,} images; a known image is more confident than one of these "
        f"{100 * other.auroc:.1f} % of the time"
        for other in found.unlike
    ]
    return rows
