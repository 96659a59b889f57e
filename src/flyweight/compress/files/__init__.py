"""Methods that make another file of a bundle's file: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flyweight.compress.files.context import FileContext, Made
from flyweight.compress.files.fp16 import Fp16, fp16
from flyweight.compress.files.int8 import Int8, int8
from flyweight.compress.files.palette import Palette, palette
from flyweight.compress.step import Options


@dataclass(frozen=True)
class FileMethod:
    """What makes the file, what it can be told, and after which steps it cannot be made, with the reason."""

    make: Callable[[FileContext, Any], Made]
    options: type[Options]
    not_after: Mapping[str, str] = field(default_factory=dict)


_LEVELS = {"qat": "its file is int8 already"}
_INSIDE = {"exit": "layers then lie inside a branch of the file"}

FILES: dict[str, FileMethod] = {
    "int8": FileMethod(int8, Int8, _LEVELS | _INSIDE),
    "fp16": FileMethod(fp16, Fp16, _LEVELS),
    "palette": FileMethod(palette, Palette, _LEVELS | _INSIDE),
}
