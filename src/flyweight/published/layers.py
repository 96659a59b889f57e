"""A network in one line, counted by integer arithmetic: parameters and multiply-accumulates. No torch.

(conv3x3x10v relu pool2 conv3x3x20v relu pool2 dense10)x2 concat dense32 relu dense10

conv3x3x10   convolution of 3 × 3 into 10 channels, with bias; `v`: valid padding (else same), `s2`: stride 2
dw3x3        depthwise convolution, with bias; `v` and `s2` as above
dense10      fully connected into 10, with bias; flattens a picture by itself
pool2        2 × 2 pooling of stride 2 (the rest of an odd side is dropped); `avgpool2` is the same here
gap          global average: one value per channel
bn           batch normalisation: two parameters per channel (and two running statistics)
relu …       relu, gelu, hswish, swish, tanh, sigmoid, softmax, dropout, flatten, concat: nothing to count
( … )x2      so many parallel branches on the same input, their outputs side by side
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

_FREE_LAYERS = "relu relu6 gelu hswish swish tanh sigmoid softmax dropout flatten concat"
_FREE = frozenset(_FREE_LAYERS.split())
_TOKEN = re.compile(r"\(|\)x\d+|\)|[^\s()]+")
_WHERE = r"(?P<rest>(?:v|s\d+)*)"


@dataclass(frozen=True)
class Counted:
    """What a network holds and does for one image.

    Attributes:
        params: Learned values.
        macs: Multiply-accumulates.
        buffers: Values that are stored but not learned: running statistics.
        shape: Of the output: (channels, height, width), or (features,).
    """

    params: int
    macs: int
    buffers: int
    shape: tuple[int, ...]


def count_layers(text: str, in_chans: int, image_size: int) -> Counted:
    """Return the counted cost of the network that `text` describes, on images of (in_chans, size, size).

    Raises:
        ValueError: The line cannot be read, or a layer does not fit what comes before it; the message says which.
    """
    tokens = _TOKEN.findall(text)
    if not tokens:
        raise ValueError("no layer")
    counted, used = _sequence(tokens, 0, Counted(0, 0, 0, (in_chans, image_size, image_size)))
    if used != len(tokens):
        raise ValueError(f"{tokens[used]!r} closes nothing")
    return counted


def _sequence(tokens: list[str], at: int, so_far: Counted) -> tuple[Counted, int]:
    """Count from token `at` to the end or to the bracket that closes this sequence; return that position too."""
    while at < len(tokens) and not tokens[at].startswith(")"):
        if tokens[at] == "(":
            inner, at = _sequence(tokens, at + 1, replace(so_far, params=0, macs=0, buffers=0))
            if at == len(tokens):
                raise ValueError("a bracket is not closed")
            so_far = _parallel(so_far, inner, int(tokens[at][2:] or 1))
        else:
            so_far = _layer(tokens[at], so_far)
        at += 1
    return so_far, at


def _parallel(before: Counted, branch: Counted, times: int) -> Counted:
    if times < 1:
        raise ValueError("a bracket is repeated no times")
    return Counted(
        before.params + times * branch.params,
        before.macs + times * branch.macs,
        before.buffers + times * branch.buffers,
        (times * branch.shape[0], *branch.shape[1:]),
    )


def _layer(token: str, before: Counted) -> Counted:
    if token in _FREE:
        return before
    for pattern, count in _LAYERS.items():
        found = re.fullmatch(pattern, token)
        if found:
            return count(token, found, before)
    raise ValueError(f"{token!r} is no layer")


def _conv(token: str, found: re.Match[str], before: Counted) -> Counted:
    channels = _picture(token, before)[0]
    kernel, out = (int(found["h"]), int(found["w"])), int(found["out"])
    weights = kernel[0] * kernel[1] * channels * out
    return _added(token, before, weights, out, _sides(token, before, kernel, found["rest"]))


def _depthwise(token: str, found: re.Match[str], before: Counted) -> Counted:
    channels = _picture(token, before)[0]
    kernel = (int(found["h"]), int(found["w"]))
    return _added(
        token, before, kernel[0] * kernel[1] * channels, channels, _sides(token, before, kernel, found["rest"])
    )


def _dense(token: str, found: re.Match[str], before: Counted) -> Counted:
    out = int(found["out"])
    return _added(token, before, math.prod(before.shape) * out, out, ())


def _pool(token: str, found: re.Match[str], before: Counted) -> Counted:
    channels, height, width = _picture(token, before)
    size = int(found["size"])
    if size < 1:
        raise ValueError(f"{token!r} has no size")
    return _placed(token, before, (channels, height // size, width // size))


def _gap(token: str, found: re.Match[str], before: Counted) -> Counted:
    return replace(before, shape=_picture(token, before)[:1])


def _norm(token: str, found: re.Match[str], before: Counted) -> Counted:
    return replace(before, params=before.params + 2 * before.shape[0], buffers=before.buffers + 2 * before.shape[0])


_LAYERS: dict[str, Callable[[str, re.Match[str], Counted], Counted]] = {
    rf"conv(?P<h>\d+)x(?P<w>\d+)x(?P<out>\d+){_WHERE}": _conv,
    rf"dw(?P<h>\d+)x(?P<w>\d+){_WHERE}": _depthwise,
    r"dense(?P<out>\d+)": _dense,
    r"(?:max|avg)?pool(?P<size>\d+)": _pool,
    r"gap": _gap,
    r"bn": _norm,
}


def _picture(token: str, before: Counted) -> tuple[int, int, int]:
    if len(before.shape) != 3:
        raise ValueError(f"{token!r} needs a picture, but {before.shape[0]} features come before it")
    return (before.shape[0], before.shape[1], before.shape[2])


def _sides(token: str, before: Counted, kernel: tuple[int, int], rest: str) -> tuple[int, int]:
    strides = re.findall(r"s(\d+)", rest)
    stride = int(strides[-1]) if strides else 1
    if stride < 1:
        raise ValueError(f"{token!r} has no stride")
    valid = "v" in rest
    height, width = (
        (side - k) // stride + 1 if valid else math.ceil(side / stride)
        for side, k in zip(_picture(token, before)[1:], kernel, strict=True)
    )
    return (height, width)


def _added(token: str, before: Counted, weights: int, out: int, sides: tuple[int, ...]) -> Counted:
    places = math.prod(sides)
    counted = replace(before, params=before.params + weights + out, macs=before.macs + weights * places)
    return _placed(token, counted, (out, *sides))


def _placed(token: str, counted: Counted, shape: tuple[int, ...]) -> Counted:
    if min(shape) < 1:
        raise ValueError(f"nothing is left after {token!r}: {' × '.join(map(str, shape))}")
    return replace(counted, shape=shape)
