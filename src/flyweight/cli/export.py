"""`flyweight export`: a finished run becomes a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.progress import need_train_extra


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    data: Annotated[str, typer.Option(help="The data it was trained on, for golden images and the check of parity.")],
    int8: Annotated[
        Path | None, typer.Option(help="Add the int8 variant of this run (trained with --recipe qat --from RUN).")
    ] = None,
    default: Annotated[str | None, typer.Option(help="Variant used when none is named: fp32 or int8.")] = None,
    pad_channels: Annotated[
        bool, typer.Option(help="Round a tiny_sep's channels up to multiples of 4 with zeros: faster in ONNX Runtime.")
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(help="Answer with the mean over an image and its mirror image: often better, at twice the time."),
    ] = False,
    training: Annotated[
        bool, typer.Option(help="Carry the weights that training can go on from: often larger than the model file.")
    ] = True,
    quarantine: Annotated[
        Path | None, typer.Option(help="Leave out the images named in this file, one a line.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a finished run into a bundle that runs without torch; refuses when the file disagrees with the network."""
    need_train_extra()
    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data
    from flyweight.errors import ExportError
    from flyweight.export import export as export_bundle
    from flyweight.export.bundle import precision_of
    from flyweight.export.trained import export_variant
    from flyweight.train.trained import Trained

    trained = Trained.load(run)
    trained = trained.padded() if pad_channels else trained
    trained = trained.mirrored() if mirror else trained
    dataset = leave_out(load_data(data, group=trained.recipe.data.group), quarantine)
    chosen = default or precision_of(trained.architecture)
    if chosen not in {precision_of(trained.architecture), *(["int8"] if int8 else [])}:
        raise ExportError(
            f"--default {chosen!r} is none of the variants", do="give fp32, or int8 together with --int8 RUN"
        )
    bundle = export_bundle(trained, dataset, out, training=training)
    if int8 is not None:
        levels = Trained.load(int8)
        levels = levels.mirrored() if mirror else levels
        bundle = export_variant(bundle, levels, dataset, out, default=chosen == "int8")
    variant = bundle.variant()
    if as_json:
        print(json.dumps({"bundle": str(bundle.path), "variant": variant.name, "size_bytes": variant.size_bytes}))
        return
    print(f"bundle  {bundle.path} ({variant.file.name}, {variant.size_bytes / 1000:.1f} kB)")
    print(f"next    flyweight verify {bundle.path} --data {data}")
