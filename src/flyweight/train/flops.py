"""What a training step costs, counted by torch with grouped convolutions put right.

Up to torch 2.14 FlopCounterMode counts the gradient of a grouped convolution's weights as if it were dense: for a
depthwise one as many times too much as it has channels (pytorch/pytorch#183405).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def counter() -> FlopCounterMode:
    """Return a context that counts the floating-point operations of what runs within, two to a multiply-accumulate."""
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _convolution_backward(
    grad_out: Sequence[int],
    images: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """Each of the two gradients, of the input and of the weights, takes the operations of the forward pass."""
    places = prod(images[2:]) if transposed else prod(grad_out[2:])
    forward = 2 * images[0] * places * prod(weight)
    return forward * (int(wanted[0]) + int(wanted[1]))
