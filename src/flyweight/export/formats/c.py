"""C99 for microcontrollers: static memory, no heap; an int8 file in integers. `export/c/` writes it."""

from __future__ import annotations

from pathlib import Path

from flyweight import __version__
from flyweight.errors import ExportError
from flyweight.export.formats.format import Format, Original, Written
from flyweight.files import write_text
from flyweight.runtime.bundle import Bundle, Variant


def source(bundle: Bundle, precision: str) -> Variant:
    """Return the ONNX file of that precision: what C is written from. Raises ExportError where there is none."""
    found = [one for one in bundle.variants.values() if (one.format, one.precision) == ("onnx", precision)]
    if not found:
        raise ExportError(
            f"the bundle {bundle.name!r} has no {precision} ONNX file, which C in {precision} is written from; it has "
            f"{', '.join(bundle.variants)}",
            do="add one first: flyweight export RUN --int8 RUN8 --data DATA --out BUNDLE"
            if precision == "int8"
            else "use --precision int8",
        )
    return min(found, key=lambda one: one.source is not None)  # one that was trained in it, before a converted one


def write(original: Original, precision: str, file: Path) -> Written:
    """Write model sources at `file` and beside it the header. Raises ExportError."""
    from flyweight.export.c.source import source_of
    from flyweight.runtime.backends.c import build

    # Not the bundle's name, which may change: this text must be written again wherever it is to be run.
    made = source_of(original.bundle, original.variant, stem=file.stem, title=original.variant.name)
    header = file.with_suffix(".h")
    write_text(file, made.code)
    write_text(header, made.header)
    build(made.code.encode(), made.header.encode(), file.stem)
    notes = (
        f"{made.weight_bytes} bytes of constants in flash and {made.arena_bytes} bytes of static RAM for activations",
    )
    in_float = made.in_float if precision == "int8" else ()
    return Written(f"flyweight {__version__}", (header,), made.layers, in_float, notes)


def expresses(content: bytes) -> bool:
    """Tell whether there is C for a float ONNX file."""
    from flyweight.export.c.source import expresses as found

    return found(content)


FORMAT = Format(
    name="c",
    title="C",
    suffix=".c",
    backend="c",
    extra="",
    packages=("onnx",),
    precisions=("fp32", "int8"),
    calibrated=(),
    carries="in the file (class names, and in the header how a picture is fitted)",
    write=write,
    expresses=expresses,
    source=source,
)
