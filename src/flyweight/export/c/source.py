"""model.c and model.h: an ONNX file as C99 that needs nothing but its own static memory."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from flyweight import __version__
from flyweight.errors import ExportError
from flyweight.export.c.emit import emit, float_literal
from flyweight.export.c.error import CannotExpress
from flyweight.export.c.graph import read_graph
from flyweight.export.c.lower import Lowered, lower
from flyweight.export.formats.format import cannot
from flyweight.runtime.bundle import Bundle, Variant

TEMPLATES = files("flyweight.export.c") / "templates"
LAYERS = ("conv_f32", "depthwise_f32", "conv_u8", "conv_u8_f32", "depthwise_u8")
MORE = "docs/microcontrollers.md#what-it-computes"


@dataclass(frozen=True)
class Source:
    """A model as C.

    Attributes:
        code: Of model.c.
        header: Of model.h.
        weight_bytes: Of constant arrays, in flash.
        arena_bytes: Of activations, in static RAM.
        layers: Convolutions and dense layers.
        in_float: The kernels of those of them that are computed in float32.
        kernels: How often each kernel is called.
    """

    code: str
    header: str
    weight_bytes: int
    arena_bytes: int
    layers: int
    in_float: tuple[str, ...]
    kernels: dict[str, int]


def lowered(bundle: Bundle, variant: Variant) -> Lowered:
    """Return the steps of a variant's ONNX file.

    Raises:
        ExportError: It is no ONNX file, or has an operator that no kernel computes.
    """
    if variant.format != "onnx":
        raise ExportError(
            f"the variant {variant.name!r} is a {variant.format!r} file; C is written from ONNX",
            do="name a variant in ONNX",
            more=MORE,
        )
    try:
        return lower(read_graph(variant.file.read_bytes()))
    except CannotExpress as error:
        floats = [one for one in bundle.variants.values() if (one.format, one.precision) == ("onnx", "fp32")]
        content = (floats or [variant])[0].file.read_bytes()  # other formats are written from the float file
        raise cannot("C", error.operator, error.where, content, ("c",)) from error


def expresses(content: bytes) -> bool:
    """Tell whether there is C for an ONNX file."""
    try:
        lower(read_graph(content))
    except (CannotExpress, ExportError):
        return False
    return True


def source_of(
    bundle: Bundle, variant: Variant, name: str = "flyweight", *, stem: str = "model", title: str | None = None
) -> Source:
    """Return a variant of a bundle as C99.

    Args:
        name: What every public symbol begins with.
        stem: The files are called STEM.c and STEM.h.
        title: What the files say they are; the names of bundle and variant without.

    Raises:
        ExportError: The variant is no ONNX file, or has an operator that no kernel computes.
    """
    if not (name.isidentifier() and name.isascii()):
        raise ExportError(f"{name!r} cannot begin the names of C functions", do="use letters, digits and underscores")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", stem):  # it stands in an #include, where anything else could be a program
        raise ExportError(f"{stem!r} cannot be the name of a C file", do="use letters, digits, - _ .")
    steps = lowered(bundle, variant)
    emitted = emit(steps)
    preprocess, used = bundle.preprocess, Counter(step.kernel for step in steps.program.steps)
    fill = (math.floor(mean * 255 + 0.5) for mean in preprocess.mean)
    texts = {
        **{"name": name, "NAME": name.upper(), "header": f"{stem}.h", "file": f"{stem}.c", "version": __version__},
        "title": _comment(title or f"{bundle.name}, {variant.name}"),
        "parameters": f"{emitted.weight_bytes} bytes of constants, {emitted.arena_bytes} bytes of activations.",
        "onnx": _comment(variant.file.name),
        "precision": _comment(variant.precision),
        "sha256": hashlib.sha256(variant.file.read_bytes()).hexdigest(),
        "preprocess": _comment(json.dumps(preprocess.to_json())),
        "weight_bytes": emitted.weight_bytes,
        "arena_bytes": emitted.arena_bytes,
        "includes": "\n".join(f"#include {header}" for header in ("<math.h>", *emitted.includes)),
        "declarations": emitted.declarations,
        "calls": emitted.calls,
        "classes": ",\n".join(f"    {string_literal(one)}" for one in bundle.classes),
        "count": len(bundle.classes),
        "side": preprocess.image_size,
        "channels": preprocess.channels,
        "temperature": float_literal(bundle.temperature),
        "fit": f"FLYWEIGHT_{preprocess.resize.upper()}",
        "filter": f"FLYWEIGHT_{preprocess.interpolation.upper()}",
        "fill": ", ".join(map(str, fill)),
    }
    return Source(
        code=filled("model.c", texts),
        header=filled("model.h", texts),
        weight_bytes=emitted.weight_bytes,
        arena_bytes=emitted.arena_bytes,
        layers=sum(used[kernel] for kernel in LAYERS),
        in_float=tuple(kernel for kernel in LAYERS[:2] for _ in range(used[kernel])),
        kernels=dict(used),
    )


def filled(template: str, texts: dict[str, object]) -> str:
    """Return a template with its names filled in."""
    return Template((TEMPLATES / template).read_text("utf-8")).substitute(texts)


def string_literal(text: str) -> str:
    """Return a C string of any text: other bytes than plain ASCII as octal escapes, which end after three digits."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode("utf-8")
    )
    return f'"{plain}"'


def _comment(text: str) -> str:
    """Return a text that ends no comment: without control characters, line splices and what a trigraph makes one of."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain.replace("\\", " ").replace("??", "? ?").replace("*/", "* /").replace("/*", "/ *")
