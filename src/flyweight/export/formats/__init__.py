"""The formats a bundle can be converted to, by name: one small file each, one line here."""

from __future__ import annotations

from difflib import get_close_matches

from flyweight.errors import ExportError
from flyweight.export.formats import c, executorch, litert, onnx, openvino, torchexport
from flyweight.export.formats.format import Format, Original, Written

__all__ = ["FORMATS", "Format", "Original", "Written", "find_format"]

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        onnx.FORMAT,
        openvino.FORMAT,
        litert.FORMAT,
        executorch.FORMAT,
        torchexport.FORMAT,
        c.FORMAT,
    )
}  # fmt: skip


def find_format(name: str, precision: str | None = None) -> tuple[Format, str]:
    """Return a format by name, and its precision: the one asked for, or its usual one. Raises ExportError."""
    if name not in FORMATS:
        close = get_close_matches(name, FORMATS, 1) or list(FORMATS)
        raise ExportError(f"there is no format {name!r}; known: {', '.join(FORMATS)}", do=f"use --to {close[0]}")
    found = FORMATS[name]
    chosen = precision or found.precisions[0]
    if chosen not in found.precisions:
        raise ExportError(
            f"{found.title} is not written in {chosen!r} here; it is in {', '.join(found.precisions)}",
            do=f"use --precision {found.precisions[0]}",
        )
    return found, chosen
