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
    quarantine: Annotated[
        Path | None, typer.Option(help="Leave out the images named in this file, one a line.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a finished run into a bundle that runs without torch; refuses when the file disagrees with the network."""
    need_train_extra()
    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data
    from flyweight.export import export as export_bundle
    from flyweight.train.trained import Trained

    trained = Trained.load(run)
    dataset = leave_out(load_data(data, group=trained.recipe.data.group), quarantine)
    bundle = export_bundle(trained, dataset, out)
    variant = bundle.variant()
    if as_json:
        print(json.dumps({"bundle": str(bundle.path), "variant": variant.name, "size_bytes": variant.size_bytes}))
        return
    print(f"bundle  {bundle.path} ({variant.file.name}, {variant.size_bytes / 1000:.1f} kB)")
    print(f"next    flyweight verify {bundle.path} --data {data}")
