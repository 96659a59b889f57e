"""`flyweight sources`: a bundle as C sources for a microcontroller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def sources(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    out: Annotated[Path, typer.Option(help="New folder for the sources.")],
    variant: Annotated[
        str | None, typer.Option(help="An ONNX variant, float or int8; the default one without.")
    ] = None,
    name: Annotated[str, typer.Option(help="What every C function of the model begins with.")] = "flyweight",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a bundle's network as C99 for microcontrollers, with golden pictures and examples for CMake and Arduino."""
    from flyweight.export.c.project import write_project
    from flyweight.runtime.bundle import Bundle

    made = write_project(Bundle.open(bundle), out, variant=variant, name=name)
    if as_json:
        print(
            json.dumps(
                {
                    "folder": str(made.folder),
                    "weight_bytes": made.source.weight_bytes,
                    "arena_bytes": made.source.arena_bytes,
                    "layers": made.source.layers,
                    "in_float": list(made.source.in_float),
                    "golden_pictures": made.golden,
                    "golden_tolerance": made.tolerance,
                    "sizes": [vars(size) for size in made.sizes],
                }
            )
        )
        return
    print(f"sources  {out}: {made.source.weight_bytes} B of constants, {made.source.arena_bytes} B of static RAM")
    for size in made.sizes:
        print(f"size     {size.target}: flash {size.flash} B, RAM {size.ram} B ({size.compiler}, -Os, model.c alone)")
    print(f"golden   {made.golden} pictures, tolerance of a logit {made.tolerance:.3g}")
    print(f"next     cmake -S {out} -B {out}/build && cmake --build {out}/build && ctest --test-dir {out}/build")
