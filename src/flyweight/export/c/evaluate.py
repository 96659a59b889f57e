"""What the integer kernels compute, in numpy: a second source for logits that a device must give to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.export.c.fuse import fuse
from flyweight.export.c.graph import Array
from flyweight.export.c.lower import Lowered
from flyweight.export.c.values import Step

Parameters = Mapping[str, Any]


def is_integer(lowered: Lowered) -> bool:
    """Tell whether everything but the scale of the logits is computed in integers."""
    return all(step.kernel in KERNELS for step in lowered.program.steps)


def evaluate(lowered: Lowered, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return logits (N, K) of images (N, C, S, S), one at a time, in the arithmetic of the C kernels.

    Only for programs that compute in integers (`is_integer`).
    """
    steps = fuse(lowered.program.steps)
    return np.stack([_one(steps, lowered, image) for image in images])


def _one(steps: Sequence[Step], lowered: Lowered, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    memory: dict[int, Array] = {lowered.image.number: image.transpose(1, 2, 0).ravel()}
    for step in steps:
        given = [memory[storage.number] for storage in step.inputs]
        if step.kernel == "copy":  # several may fill one storage
            kind = np.float32 if step.output.kind == "float" else np.uint8
            target = memory.setdefault(step.output.number, np.zeros(step.output.count, kind))
            _copy(step.parameters, given[0], target)
        else:
            memory[step.output.number] = KERNELS[step.kernel](step.parameters, given).ravel()
    return memory[lowered.logits.number]


def requantize(value: Array, multiplier: Any, shift: Any, p: Parameters) -> NDArray[np.uint8]:
    """Return levels: value * multiplier / 2**shift, halves to even, plus the zero point, clipped."""
    product, shift = value.astype(np.int64) * np.int64(multiplier), np.asarray(shift, np.int64)
    return _rounded(product, shift, p)


def _rounded(product: Array, shift: Any, p: Parameters) -> NDArray[np.uint8]:
    rest, half = product & ((np.int64(1) << shift) - 1), np.int64(1) << (shift - 1)
    level = product >> shift
    level = level + ((rest > half) | ((rest == half) & (level % 2 == 1)))
    return np.asarray(np.clip(level + p["out_zero"], p["low"], p["high"]), np.uint8)


def _windows(p: Parameters, given: Array) -> Array:
    """Return (out_h, out_w, c, kh, kw) of levels less their zero point, 0 in the padding."""
    picture = given.reshape(p["h"], p["w"], p["c"]).astype(np.int64) - p.get("in_zero", 0)
    reach_h, reach_w = p["gap_h"] * (p["kh"] - 1) + 1, p["gap_w"] * (p["kw"] - 1) + 1
    below = max((p["out_h"] - 1) * p["down"] + reach_h - p["h"] - p["top"], 0)
    right = max((p["out_w"] - 1) * p["across"] + reach_w - p["w"] - p["left"], 0)
    padded = np.pad(picture, ((p["top"], below), (p["left"], right), (0, 0)))
    found = np.lib.stride_tricks.sliding_window_view(padded, (reach_h, reach_w), (0, 1))
    found = found[:: p["down"], :: p["across"], :, :: p["gap_h"], :: p["gap_w"]]
    return found[: p["out_h"], : p["out_w"]]


def _sums(p: Parameters, given: Array) -> Array:
    """Return the integer sums (out_h, out_w, out_c) of a convolution."""
    windows, weight = _windows(p, given), p["weight"].astype(np.float64)  # exact: sums stay below 2**31
    depth, share = p["c"] // p["groups"], p["out_c"] // p["groups"]
    parts = [
        np.tensordot(
            windows[:, :, group * depth : (group + 1) * depth].astype(np.float64),
            weight[group * share : (group + 1) * share],
            ([2, 3, 4], [3, 1, 2]),
        )
        for group in range(p["groups"])
    ]
    return np.concatenate(parts, axis=2).astype(np.int64) + (0 if p["bias"] is None else p["bias"])


def _conv(p: Parameters, given: Sequence[Array]) -> Array:
    found = requantize(_sums(p, given[0]), p["multiplier"].astype(np.int64), p["shift"], p)
    return _sum(p["sum"], found.ravel(), given[1]) if "sum" in p else found


def _conv_to_floats(p: Parameters, given: Sequence[Array]) -> Array:
    scaled = _sums(p, given[0]).astype(np.float32) * p["scale"]
    return np.asarray(np.clip(scaled, np.float32(p["least"]), np.float32(p["most"])))


def _depthwise(p: Parameters, given: Sequence[Array]) -> Array:
    sums = (_windows(p, given[0]) * p["weight"].astype(np.int64).transpose(2, 0, 1)).sum(axis=(3, 4))
    sums = sums + (0 if p["bias"] is None else p["bias"])
    return requantize(sums, p["multiplier"].astype(np.int64), p["shift"], p)


def _sum(p: Parameters, a: Array, b: Array) -> Array:
    total = (a.astype(np.int64) - p["a_zero"]) * p["a_multiplier"]
    return _rounded(total + (b.astype(np.int64) - p["b_zero"]) * p["b_multiplier"], np.int64(p["shift"]), p)


def _add(p: Parameters, given: Sequence[Array]) -> Array:
    return _sum(p["sum"], given[0], np.resize(given[1], given[0].shape))


def _multiply(p: Parameters, given: Sequence[Array]) -> Array:
    other = np.resize(given[1], given[0].shape).astype(np.int64) - p["b_zero"]
    return requantize((given[0].astype(np.int64) - p["a_zero"]) * other, p["multiplier"], p["shift"], p)


def _look_up(p: Parameters, given: Sequence[Array]) -> Array:
    tables = p["table"].reshape(-1, 256)
    return np.asarray(tables[np.arange(len(given[0])) % p["channels"], given[0]])


def _greatest(p: Parameters, given: Sequence[Array]) -> Array:
    return np.asarray(_windows({**p, "in_zero": 0}, given[0]).max(axis=(3, 4)).astype(np.uint8))


def _mean(p: Parameters, given: Sequence[Array]) -> Array:
    sums = _windows(p, given[0]).sum(axis=(3, 4))
    inside = _windows({**p, "in_zero": 0}, np.ones_like(given[0])).sum(axis=(3, 4))
    at = 0 if p["padding_counts"] else inside - 1
    return requantize(sums, p["multiplier"].astype(np.int64)[at], p["shift"].astype(np.int64)[at], p)


def _copy(p: Parameters, source: Array, target: Array) -> None:
    places = np.indices(p["sizes"]).reshape(4, -1)
    target[p["start"] + np.array(p["to"]) @ places] = source[p["offset"] + np.array(p["from"]) @ places]


KERNELS: dict[str, Callable[[Parameters, Sequence[Array]], Array]] = {
    "conv_u8": _conv,
    "conv_u8_f32": _conv_to_floats,
    "depthwise_u8": _depthwise,
    "add_u8": _add,
    "mul_u8": _multiply,
    "lut_u8": _look_up,
    "maxpool_u8": _greatest,
    "avgpool_u8": _mean,
    "copy": lambda p, given: given[0],
}
