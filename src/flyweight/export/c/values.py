"""What the C program works on: storages in memory, views of them, and the steps that fill them.

Pictures lie in memory as rows of pixels of channels (height, width, channel), whatever order ONNX speaks of them in.
Reshaping, transposing and slicing only change how a storage is looked at, until a kernel needs it in its own order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

from flyweight.export.c.error import CannotExpress

Kind = Literal["float", "uint8_t"]
SIZES = {"float": 4, "uint8_t": 1}


@dataclass(frozen=True)
class Storage:
    """A run of memory.

    Attributes:
        number: Tells it from others; 0 is the caller's image.
        count: Of elements.
    """

    number: int
    kind: Kind
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.count * SIZES[self.kind]


@dataclass(frozen=True)
class Levels:
    """What the integers of a quantized tensor stand for: `scale * (level - zero)`, level 0 to 255."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Value:
    """A tensor: a storage, and how it is looked at.

    Attributes:
        shape: As ONNX has it, the batch of one in front.
        strides: In elements, per dimension of `shape`.
        offset: Of the first element.
        levels: Of integers; None for floats.
    """

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    levels: Levels | None = None

    @property
    def is_plain(self) -> bool:
        """True where the elements fill their storage in the order that kernels read them in."""
        same = all(
            size == 1 or mine == usual
            for size, mine, usual in zip(self.shape, self.strides, usual_strides(self.shape), strict=True)
        )
        return same and self.offset == 0 and self.storage.count == math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Size of the dimension that lies innermost in memory."""
        return self.shape[1] if len(self.shape) == 4 else self.shape[-1]


@dataclass(frozen=True)
class Step:
    """One call of a kernel.

    Attributes:
        kernel: Name of a file in kernels/.
        inputs: Storages read.
        output: The storage written.
        parameters: What the kernel's struct holds: numbers, arrays or None.
        over: The input that the output may be written over: element i of it is read no later than i is written.
    """

    kernel: str
    inputs: tuple[Storage, ...]
    output: Storage
    parameters: Mapping[str, Any]
    over: int | None = None


@dataclass
class Program:
    """Steps in order, as they are added."""

    steps: list[Step] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def storage(self, kind: Kind, elements: int) -> Storage:
        """Return new memory."""
        return Storage(next(self._numbers), kind, elements)

    def add(
        self,
        kernel: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        parameters: Mapping[str, Any],
        *,
        levels: Levels | None = None,
        elementwise: bool = False,
    ) -> Value:
        """Add a step whose output is new and plain, and return that.

        Args:
            elementwise: Element i of the output needs only element i of the first input.
        """
        made = plain(self.storage("uint8_t" if levels else "float", math.prod(shape)), tuple(shape), levels)
        storages = tuple(value.storage for value in inputs)
        self.steps.append(Step(kernel, storages, made.storage, dict(parameters), 0 if elementwise else None))
        return made

    def plain(self, value: Value) -> Value:
        """Return the value in the order kernels read: itself, or a copy."""
        if value.is_plain:
            return value
        made = plain(self.storage(value.storage.kind, math.prod(value.shape)), value.shape, value.levels)
        self.copy(value, made)
        return made

    def copy(self, source: Value, target: Value) -> None:
        """Add a copy of one view into another of the same shape."""
        dims = [
            (size, ours, theirs)
            for size, ours, theirs in zip(source.shape, source.strides, target.strides, strict=True)
            if size > 1
        ]
        dims = _joined(sorted(dims, key=lambda one: -one[2]))
        if len(dims) > 4:
            raise CannotExpress("Transpose", f"of {len(dims)} dimensions at once")
        dims = [(1, 0, 0)] * (4 - len(dims)) + dims
        parameters = {
            "sizes": [one[0] for one in dims],
            "from": [one[1] for one in dims],
            "to": [one[2] for one in dims],
            "offset": source.offset,
            "start": target.offset,
            "bytes": SIZES[source.storage.kind],
        }
        self.steps.append(Step("copy", (source.storage,), target.storage, parameters))


def _joined(dims: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return (size, stride here, stride there) with dimensions made one that lie behind one another on both sides."""
    found: list[tuple[int, int, int]] = []
    for size, ours, theirs in dims:
        if found and found[-1][1:] == (size * ours, size * theirs):
            found[-1] = (found[-1][0] * size, ours, theirs)
        else:
            found.append((size, ours, theirs))
    return found


def usual_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a plain tensor: (1, C, H, W) as rows of pixels of channels, others row by row."""
    if len(shape) == 4:
        _, channels, height, width = shape
        return (channels * height * width, 1, width * channels, channels)
    return row_major(shape)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor whose last dimension lies innermost."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def plain(storage: Storage, shape: tuple[int, ...], levels: Levels | None = None) -> Value:
    """Return the plain view of a storage."""
    return Value(storage, shape, usual_strides(shape), 0, levels)


def reshape(value: Value, shape: tuple[int, ...], program: Program) -> Value:
    """Return the value with another shape, copied only where no strides can say it."""
    strides = _reshaped(value, shape)
    if strides is None:
        # Channels innermost again where it becomes a picture, so that nothing is copied a second time.
        order = [*range(len(value.shape))]
        if len(shape) == 4 and len(value.shape) > 4:
            order = [0, len(order) - 2, len(order) - 1, *range(1, len(order) - 2)]
        sizes = row_major([value.shape[axis] for axis in order])
        strides = tuple(sizes[order.index(axis)] for axis in range(len(order)))
        target = Value(
            program.storage(value.storage.kind, math.prod(value.shape)), value.shape, strides, 0, value.levels
        )
        program.copy(value, target)
        return reshape(target, shape, program)
    return replace(value, shape=shape, strides=strides)


def _reshaped(value: Value, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the strides under which the elements, in ONNX's order, have another shape; None where there are none."""
    old = [(size, stride) for size, stride in zip(value.shape, value.strides, strict=True) if size > 1]
    strides: list[int] = []
    size, stride = 1, 0  # what is left of the dimensions taken from `old`, from the last one on
    for wanted in reversed(shape):
        if wanted == 1:
            strides.append(0)
            continue
        while size % wanted or size == 1:
            if not old:
                return None
            outer, outer_stride = old.pop()
            if size > 1 and outer_stride != size * stride:
                return None
            size, stride = size * outer, stride if size > 1 else outer_stride
        strides.append(stride)
        size, stride = size // wanted, stride * wanted
    return tuple(reversed(strides))
