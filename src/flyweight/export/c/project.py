"""A folder of C sources to build: the model, resizing, golden pictures, an example for CMake and one for Arduino."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight import __version__
from flyweight.errors import ExportError, OutputError
from flyweight.export.c.emit import float_literal, literals, wrapped
from flyweight.export.c.evaluate import evaluate, is_integer
from flyweight.export.c.sizes import Size, sizes_of
from flyweight.export.c.source import TEMPLATES, Source, filled, lowered, source_of
from flyweight.files import output_error, write_text
from flyweight.runtime.bundle import Bundle, Variant
from flyweight.runtime.golden import compare

GOLDEN_BYTES = 32_768  # of pixels: a board holds no more beside its model


@dataclass(frozen=True)
class Project:
    """A written folder.

    Attributes:
        source: The model in it.
        sizes: Of model.c, compiled here.
        golden: How many pictures it is tested with.
        tolerance: What a logit may differ by; 0 where everything is computed in integers.
    """

    folder: Path
    source: Source
    sizes: tuple[Size, ...]
    golden: int
    tolerance: float


def write_project(bundle: Bundle, out: Path, *, variant: str | None = None, name: str = "flyweight") -> Project:
    """Write the sources of a variant of a bundle into a new folder.

    Args:
        name: What every public symbol begins with.

    Raises:
        ExportError: The variant is no ONNX file, has an operator that no kernel computes, or C would answer otherwise.
        OutputError: The folder exists, or cannot be written.
    """
    out, chosen = Path(out), bundle.onnx_variant(variant)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{str(out)!r} exists", do="name a new folder, so that nothing is lost")
    source = source_of(bundle, chosen, name)
    pixels, logits, tolerance = golden_of(bundle, chosen)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            work.chmod(0o755)
            sizes = _write(work, bundle, chosen, source, name, golden_header(pixels, logits, tolerance), len(pixels))
            os.replace(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise output_error(out, error) from error
    return Project(out, source, sizes, len(pixels), tolerance)


def golden_of(bundle: Bundle, variant: Variant) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """Return golden images (n, C, S, S), the logits (n, K) expected, and what they may differ by.

    Integers give the same everywhere: their logits are computed here in numpy, and must be met to the last bit. Both
    the C and these logits come of one lowering, so these are held to what the bundle's file gives in its runtime first.

    Raises:
        ExportError: They are not within the variant's tolerance of the bundle's golden logits.
    """
    images, logits = bundle.golden(variant)
    number = max(1, min(len(images), GOLDEN_BYTES // images[0].size))
    steps = lowered(bundle, variant)
    if is_integer(steps):
        found = evaluate(steps, images[:number])
        _hold(variant, found, logits[:number])
        return images[:number], found, 0.0
    return images[:number], logits[:number], variant.tolerance


def _hold(variant: Variant, found: NDArray[np.float32], golden: NDArray[np.float32]) -> None:
    told = compare(found, golden, variant.tolerance)
    if not told["ok"]:
        raise ExportError(
            f"C of {variant.file.name!r} would give other answers than the file in its runtime: the largest difference "
            f"of a logit is {told['max_error']}, the tolerance {variant.tolerance:.3g} ({told['n']} golden images)",
            do="report it with the bundle: the translation to C is wrong; use the fp32 variant meanwhile",
            more="docs/microcontrollers.md",
        )


def golden_header(images: NDArray[np.uint8], logits: NDArray[np.float32], tolerance: float) -> str:
    """Return the C text of golden pictures."""
    number, pixels = len(images), images[0].size
    lines = [
        "/* Pictures and the logits that the model must give of them. */",
        "",
        "#ifndef GOLDEN_H",
        "#define GOLDEN_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define GOLDEN_PICTURES {number}",
        f"#define GOLDEN_TOLERANCE {float_literal(tolerance)}",
        "",
        f"static const uint8_t golden_pixels[GOLDEN_PICTURES][{pixels}] = {{",
        *_rows(images.transpose(0, 2, 3, 1)),
        "};",
        "",
        f"static const float golden_logits[GOLDEN_PICTURES][{logits.shape[1]}] = {{",
        *_rows(logits),
        "};",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _rows(array: NDArray[np.uint8] | NDArray[np.float32]) -> Iterator[str]:
    for one in array:
        yield "    {"
        yield from wrapped(literals(one), "        ")
        yield "    },"


def _write(
    folder: Path, bundle: Bundle, variant: Variant, source: Source, name: str, golden: str, number: int
) -> tuple[Size, ...]:
    texts: dict[str, object] = {"name": name, "NAME": name.upper()}
    written = {
        "model.c": source.code,
        "model.h": source.header,
        "golden.h": golden,
        "resize.c": (TEMPLATES / "resize.c").read_text("utf-8"),
        "resize.h": (TEMPLATES / "resize.h").read_text("utf-8"),
        **{file: filled(file, texts) for file in ("test_golden.c", "main.c", "CMakeLists.txt")},
    }
    sketch = Path("arduino") / name
    for file in ("model.c", "model.h", "golden.h"):
        written[str(sketch / file)] = written[file]
    written[str(sketch / f"{name}.ino")] = filled("sketch.ino", texts)
    for file, content in written.items():
        write_text(folder / file, content)
    sizes = tuple(sizes_of(folder / "model.c"))
    write_text(folder / "README.md", _readme(bundle, variant, source, texts, sizes, number))
    return sizes


def _readme(
    bundle: Bundle, variant: Variant, source: Source, texts: dict[str, object], sizes: tuple[Size, ...], number: int
) -> str:
    integers = variant.precision == "int8" and not source.in_float
    preprocess = bundle.preprocess
    rows = [
        line
        for size in sizes
        for line in (
            f"| flash of model.o, {size.target} ({size.compiler}, -Os) | {size.flash} |",
            f"| static RAM of model.o, {size.target} | {size.ram} |",
        )
    ]
    facts = {
        **texts,
        "title": f"{bundle.name}, {variant.name}",
        "version": __version__,
        "onnx": variant.file.name,
        "precision": variant.precision,
        "side": preprocess.image_size,
        "channels": preprocess.channels,
        "weight_bytes": source.weight_bytes,
        "arena_bytes": source.arena_bytes,
        "sizes": "\n".join(rows) or "| flash and RAM with code: no compiler here | |",
        "arithmetic": "integers: int8 weights, uint8 activations, int32 sums" if integers else "float32",
        "classes": ", ".join(bundle.classes[:10]) + (", …" if len(bundle.classes) > 10 else ""),
        "fitting": f"{preprocess.resize}, {preprocess.interpolation}",
        "golden": number,
        "tolerance": "0: equal to the last bit" if integers else f"{variant.tolerance:.3g}",
    }
    return filled("README.md", facts)
