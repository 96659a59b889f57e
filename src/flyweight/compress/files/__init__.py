"""Methods that make another file of a bundle's file: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flyweight.compress.files.context import FileContext, Made
from flyweight.compress.files.fp16 import Fp16, fp16
from flyweight.compress.files.int8 import Int8, int8
from flyweight.compress.files.palette import Palette, palette
from flyweight.compress.step import Options


@dataclass(frozen=True)
class FileMethod:
    """What makes the file, and what it can be told."""

    make: Callable[[FileContext, Any], Made]
    options: type[Options]


FILES: dict[str, FileMethod] = {
    "int8": FileMethod(int8, Int8),
    "fp16": FileMethod(fp16, Fp16),
    "palette": FileMethod(palette, Palette),
}
