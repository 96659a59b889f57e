"""`flyweight convert`: one more file of a bundle, in another format or precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.progress import need_train_extra

if TYPE_CHECKING:
    from flyweight.export.convert import Converted


def convert(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    to: Annotated[str, typer.Option(help="Format, such as onnx; docs/formats.md lists them.")],
    out: Annotated[Path, typer.Option(help="The bundle with one more variant; may be BUNDLE itself.")],
    precision: Annotated[str | None, typer.Option(help="Such as fp32, bf16, int8; the format's usual one.")] = None,
    data: Annotated[
        str | None, typer.Option(help="The data it was trained on: to calibrate on, and to compare the files on.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run, where the bundle ships no training weights.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the variant; FORMAT-PRECISION without.")] = None,
    opset: Annotated[int | None, typer.Option(help="Of --to onnx: from 14 to what ONNX Runtime here loads.")] = None,
    same_class: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least top-1 agreement with the float file (share).")
    ] = None,
    default: Annotated[bool, typer.Option(help="Make it the variant used when none is named.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Add a variant to a bundle: another format or precision, refused where it disagrees with the float file."""
    need_train_extra()
    from flyweight.data.sources import load_data
    from flyweight.export.convert import convert as run_convert
    from flyweight.export.convert import open_bundle
    from flyweight.export.images import real_images

    opened = open_bundle(bundle)
    images = None if data is None else real_images(opened, load_data(data, group=opened.split.get("group")))
    found = run_convert(
        opened, to, out, precision=precision, images=images, run=run, name=name, opset=opset, same_class=same_class,
        default=default,
    )  # fmt: skip
    if as_json:
        print(json.dumps(_facts(found)))
        return
    variant, parity, written = found.variant, found.parity, found.written
    print(f"bundle   {out} has the variant {variant.name} ({variant.file.name}, {variant.size_bytes / 1000:.1f} kB)")
    print(
        f"parity   {parity.n} images through {variant.backend}: largest difference of a logit "
        f"{parity.max_abs_error:.2g}, top-1 agreement {parity.top1_agreement:.2%}"
    )
    if written.in_float:
        print(f"float    {len(written.in_float)} of {written.layers} layers: {', '.join(written.in_float)}")
    for note in written.notes:
        print(f"note     {note}")
    print(f"next     flyweight verify {out} --variant {variant.name}{f' --data {data}' if data else ''}")


def _facts(found: Converted) -> dict[str, object]:
    return {
        "bundle": str(found.bundle.path),
        "variant": found.variant.name,
        "file": found.variant.file.name,
        "size_bytes": found.variant.size_bytes,
        "parity": found.parity.to_json(),
        "layers": found.written.layers,
        "in_float": list(found.written.in_float),
        "tool": found.written.tool,
        "notes": list(found.written.notes),
    }
