"""The C text of a program: the kernels it uses, weights as constant arrays, one call per step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from flyweight.export.c.arena import Arena, plan
from flyweight.export.c.fuse import fuse
from flyweight.export.c.graph import Array
from flyweight.export.c.lower import Lowered
from flyweight.export.c.unary import UNARY
from flyweight.export.c.values import Step, Storage

TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.int8): "int8_t",
    np.dtype(np.uint8): "uint8_t",
    np.dtype(np.int32): "int32_t",
}
STRUCTS = {
    "conv_u8_f32": "conv_u8",
    **dict.fromkeys(("maxpool_u8", "maxpool_f32", "avgpool_u8", "avgpool_f32"), "pool"),
}
SUMS = {"conv_u8": "sum_u8", "conv_f32": "sum_f32", "add_u8": "sum_u8"}
_KERNELS = files("flyweight.export.c") / "kernels"
_LINE = 116


@dataclass(frozen=True)
class Emitted:
    """The body of a C file: everything but its interface.

    Attributes:
        includes: Standard headers that it needs, beside <stdint.h> and <math.h>.
        declarations: Kernels, constants, the arena.
        calls: The lines that compute `logits` from `pixels`.
        weight_bytes: Of all constant arrays.
        arena_bytes: Of activations.
    """

    includes: tuple[str, ...]
    declarations: str
    calls: str
    weight_bytes: int
    arena_bytes: int


@dataclass
class _Constants:
    """Constant arrays, each once whatever uses it."""

    names: dict[tuple[str, bytes], str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    nbytes: int = 0

    def name(self, array: Array) -> str:
        kind, content = TYPES[array.dtype], np.ascontiguousarray(array).tobytes()
        if (kind, content) not in self.names:
            name = self.names[kind, content] = f"data_{len(self.names)}"
            self.lines += [f"static const {kind} {name}[{array.size}] = {{", *wrapped(literals(array)), "};"]
            self.nbytes += array.nbytes
        return self.names[kind, content]


def emit(lowered: Lowered) -> Emitted:
    """Return the C text of a lowered program, its activations laid out in one static array."""
    steps, outside = fuse(lowered.program.steps), (lowered.image, lowered.logits)
    arena, constants = plan(steps, outside), _Constants()
    layers, calls = [], []
    for number, step in enumerate(steps):
        struct = _struct(step.kernel)
        if "sum" in step.parameters:
            inner = ", ".join(f".{key} = {_literal(value, constants)}" for key, value in step.parameters["sum"].items())
            layers.append(f"static const struct {SUMS[step.kernel]} sum_{number} = {{{inner}}};")
        fields = {key: f"&sum_{number}" if key == "sum" else _literal(value, constants) for key, value in _fields(step)}
        values = ", ".join(f".{key} = {value}" for key, value in fields.items())
        layers.append(f"static const struct {struct} layer_{number} = {{{values}}};")
        given = [_pointer(storage, lowered, arena) for storage in step.inputs]
        if step.kernel == "binary_f32" and len(given) == 1:
            given.append(f"layer_{number}.constant")
        if step.kernel.startswith("conv_") and step.kernel in SUMS and len(given) == 1:
            given.append("0")  # no sum
        arguments = ", ".join([f"&layer_{number}", *given, _pointer(step.output, lowered, arena)])
        calls.append(f"    {_function(step)}({arguments});")
    kernels = _kernels(steps)
    kind = "float" if any(storage.kind == "float" for storage in _inside(steps, outside)) else "uint8_t"
    size = arena.nbytes // (4 if kind == "float" else 1)
    memory = [f"static {kind} arena[{size}];"] if size else []
    parts = [kernels, "\n".join(constants.lines), "\n".join("\n".join(wrapped_struct(one)) for one in layers), *memory]
    return Emitted(
        includes=_includes("\n".join(parts)),
        declarations="\n\n".join(part for part in parts if part),
        calls="\n".join(calls),
        weight_bytes=constants.nbytes,
        arena_bytes=arena.nbytes,
    )


def literals(array: Array) -> list[str]:
    """Return an array's elements as C has them."""
    flat = array.ravel().tolist()
    return [float_literal(value) for value in flat] if array.dtype == np.float32 else [str(value) for value in flat]


def float_literal(value: float) -> str:
    """Return a float32 in as many digits as tell it from every other."""
    if not math.isfinite(value):
        raise ValueError(f"a weight is {value}")
    text = np.format_float_scientific(np.float32(value), unique=True, trim="0")
    return f"{text}f"


def wrapped(words: Sequence[str], indent: str = "    ") -> Iterator[str]:
    """Yield lines of words, separated by commas."""
    line = indent
    for word in words:
        if len(line) + len(word) + 2 > _LINE and line.strip():
            yield line.rstrip()
            line = indent
        line += f"{word}, "
    yield line.rstrip().rstrip(",")


def wrapped_struct(text: str) -> Iterator[str]:
    """Yield the lines of a long initializer."""
    start, rest = text.split("{", 1)
    yield f"{start}{{"
    yield from wrapped(rest.removesuffix("};").split(", "))
    yield "};"


def _struct(kernel: str) -> str:
    return STRUCTS.get(kernel, kernel)


def _function(step: Step) -> str:
    return f"map_{step.parameters['function']}" if step.kernel == "map_f32" else step.kernel


def _fields(step: Step) -> Iterator[tuple[str, Any]]:
    struct = _text_of_struct(_struct(step.kernel))
    for key, value in step.parameters.items():
        if value is not None and re.search(rf"\b{key}\b", struct):
            yield key, value


def _text_of_struct(struct: str) -> str:
    """Return the C text that declares a struct."""
    for name in (f"{struct}.c", f"{struct}.h", "conv_sum.h"):
        path = _KERNELS / name
        if path.is_file() and (found := re.search(rf"struct {struct} {{.*?\n}};", path.read_text("utf-8"), re.DOTALL)):
            return found[0]
    raise KeyError(struct)


def _literal(value: Any, constants: _Constants) -> str:
    if isinstance(value, np.ndarray):
        return constants.name(value)
    if isinstance(value, list):
        return "{" + " , ".join(map(str, value)) + "}"
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, (float, np.floating)):
        return float_literal(float(value))
    return str(int(value))


def _pointer(storage: Storage, lowered: Lowered, arena: Arena) -> str:
    if storage == lowered.image:
        return "pixels"
    if storage == lowered.logits:
        return "logits"
    at = arena.offsets[storage.number]
    return f"({storage.kind} *)((uint8_t *)arena + {at})"


def _inside(steps: Sequence[Step], outside: Sequence[Storage]) -> Iterator[Storage]:
    for step in steps:
        yield from (storage for storage in (*step.inputs, step.output) if storage not in outside)


def _kernels(steps: Sequence[Step]) -> str:
    """Return the C text of the kernels that are used, and of what they need, each once."""
    used: dict[str, str] = {}
    for step in steps:
        text = (_KERNELS / f"{step.kernel}.c").read_text("utf-8")
        needed = re.match(r"/\* needs: (.*?) \*/\n", text)
        for name in needed[1].split() if needed else ():
            used.setdefault(name, (_KERNELS / f"{name}.h").read_text("utf-8"))
        used.setdefault(step.kernel, text[needed.end() :] if needed else text)
    functions = dict.fromkeys(step.parameters["function"] for step in steps if step.kernel == "map_f32")
    if any("clamp(" in UNARY[name].c for name in functions):
        used.setdefault("clamp", (_KERNELS / "clamp.h").read_text("utf-8"))
    for name in functions:
        used[f"map_{name}"] = _MAP.format(name=name, expression=UNARY[name].c)
    return "\n".join(used.values())


_MAP = """static void map_{name}(const struct map_f32 *p, const float *in, float *out) {{
    for (uint32_t i = 0; i < p->count; i++) {{
        const float x = in[i];
        out[i] = {expression};
    }}
}}
"""


def _includes(text: str) -> tuple[str, ...]:
    needed = {
        "<float.h>": r"FLT_MAX",
        "<string.h>": r"\bmemcpy\(",
    }
    return tuple(header for header, pattern in needed.items() if re.search(pattern, text))
