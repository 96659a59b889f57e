"""`flyweight predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flyweight.errors import DataError
from flyweight.export.c.check import compile_if_ours
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Prediction, Predictor, find_images
from flyweight.runtime.preprocess import Source


def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, or - for one image on standard input.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Classes to show.")] = 5,
    reject_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Give no answer below this confidence; the bundle's by default.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the model; what it was measured fastest with, or 1, without.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and image.")] = False,
) -> None:
    """Classify images. One that cannot be read is named, the rest are classified, and the exit code is 1."""
    sources = _sources(images)
    opened = Bundle.open(bundle)
    compile_if_ours(opened, opened.variant(variant))
    predictor = Predictor(opened, variant=variant, threads=threads, reject_threshold=reject_below)
    unreadable = total = 0
    for found in predictor.predict(sources, top_k):
        total += 1
        unreadable += found.error is not None
        _show(found, as_json)
    if unreadable:
        print(f"{unreadable} of {total} images cannot be read; they are named above", file=sys.stderr)
        raise typer.Exit(1)


def _sources(images: list[str]) -> list[Source]:
    """Return everything that is named, before the first answer: an empty folder must not end a run half-way."""
    if images.count("-") > 1:
        raise DataError("standard input is named twice", do="give - once")
    sources: list[Source] = []
    for name in images:
        sources += [sys.stdin.buffer.read()] if name == "-" else find_images([Path(name)])
    return sources


def _show(found: Prediction, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False))
    elif found.error is not None:
        print(f"{found.source}: {found.error.what}", file=sys.stderr)
    else:
        top = ", ".join(f"{name} {confidence:.1%}" for name, confidence in found.top)
        print(f"{found.source}: {'rejected, not sure enough: ' if found.rejected else ''}{top}")
