"""`flyweight web`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def web(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    out: Annotated[Path, typer.Option(help="Folder for index.html.")],
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    ort_web: Annotated[
        Path | None,
        typer.Option(help="onnxruntime-web's .tgz or unpacked folder; FLYWEIGHT_ORT_WEB, cache or registry without."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write one HTML file that classifies pictures and measures itself wherever it is opened, without a network."""
    from flyweight.runtime.bundle import Bundle
    from flyweight.web import write_page

    page = write_page(Bundle.open(bundle), out, variant=variant, ort_web=ort_web)
    if as_json:
        print(json.dumps({"html": str(page.html), "variant": page.variant, "size_bytes": page.size_bytes}))
        return
    print(f"page    {page.html} ({page.size_bytes / 1e6:.1f} MB, variant {page.variant})")
    print("next    open it, or copy it to a phone; it needs nothing beside it")
