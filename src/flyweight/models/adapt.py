"""Fit a network made for 224 px colour photos to small inputs and any number of channels.

An ImageNet network divides each side by 32: a 32 px image would reach the head as one pixel. `adapt_stem` measures the
network instead of knowing it: it runs one blank image, notes every convolution and pool that shrinks the picture,
and sets the earliest *level* (all modules that shrink a map of that side, so that both arms of a residual block stay
in step) to stride 1, again and again until the last map is at least `min_map` pixels on a side.
Weights keep their shapes, so pretrained ones still load.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError

SMALL_INPUT = 64  # px: up to here stems are adapted unless the caller says otherwise
MIN_MAP = 4  # px: side of the last feature map that small inputs must keep

_ONEDNN_BLOCK = 16  # channels that its kernels hold at once, at most

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Shrink:
    """A module that was seen to make a feature map smaller, and the sides (px) before and after it."""

    module: nn.Module
    before: int
    after: int


def default_min_map(image_size: int) -> int:
    """Return the side in px that the last feature map must keep: an eighth of inputs up to 64 px, at most 4; then any.

    An eighth, so that a network costs less at a smaller size, not more.
    """
    return min(MIN_MAP, max(1, image_size // 8)) if image_size <= SMALL_INPUT else 1


def adapt_stem(net: nn.Module, name: str, in_chans: int, image_size: int, min_map: int) -> nn.Module:
    """Return `net`, its early strides set to 1 in place until its last feature map has a side of `min_map` px or more.

    A network without strided convolutions or pools before its head (a plain ViT) is returned as it is.

    Raises:
        ModelError: The input is too small for the network, or its stem cannot be changed without breaking it.
    """
    if min_map <= 1:  # as it was published; an image that vanishes is an error
        trace(net, name, in_chans, image_size)
        return net
    shrinks = _levels(net, name, in_chans, image_size)
    while shrinks and min(shrink.after for shrink in shrinks) < min_map:
        level = shrinks[0].before
        for shrink in shrinks:
            if shrink.before == level:
                _keep_size(shrink.module)
                _tell_branches(net, shrink.module)
        shrinks = _levels(net, name, in_chans, image_size)
    return net


def _levels(net: nn.Module, name: str, in_chans: int, image_size: int) -> list[Shrink]:
    """Return what `trace` does; of a larger image, and as maps of no pixels, where this one vanishes on its way."""
    try:
        return trace(net, name, in_chans, image_size)
    except ModelError as error:
        for size in (2 * image_size, 4 * image_size, 8 * image_size):
            with contextlib.suppress(ModelError):
                if larger := trace(net, name, in_chans, size):
                    return [Shrink(shrink.module, shrink.before, 0) for shrink in larger]
        raise error


def trace(net: nn.Module, name: str, in_chans: int, image_size: int) -> list[Shrink]:
    """Run one blank image through `net` and return what shrank the picture, in order of execution.

    Raises:
        ModelError: The network cannot take (1, `in_chans`, `image_size`, `image_size`).
    """
    shrinks: list[Shrink] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = inputs[0].shape[-1], output.shape[-1]
        if after < before and max(_pair(module.stride)) > 1:
            shrinks.append(Shrink(module, before, after))

    handles = [module.register_forward_hook(note) for module in net.modules() if isinstance(module, _STRIDED)]
    try:
        with evaluating(net), torch.no_grad():
            net(torch.zeros(1, in_chans, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise ModelError(
            f"{name} cannot take {in_chans} × {image_size} × {image_size} px: {str(error).splitlines()[0][:160]}",
            do=f"use a larger image_size than {image_size}, or a network made for small images such as tiny_cnn_16",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return shrinks


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Hold `net` in evaluation mode, then give every module its own mode back."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def set_channels(net: nn.Module, in_chans: int) -> nn.Module:
    """Return `net` with its first convolution replaced in place by one of `in_chans` channels, newly initialised."""
    if in_chans == 3:
        return net
    path, old = next((path, m) for path, m in net.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        in_chans,
        old.out_channels,
        _pair(old.kernel_size),
        _pair(old.stride),
        _pair(old.padding),
        bias=old.bias is not None,
    )
    net.set_submodule(path, new)
    return net


def _keep_size(module: nn.Module) -> None:
    """Set stride 1 so that the module gives a map of about the side it takes."""
    assert isinstance(module, _STRIDED)
    kernel = _pair(module.kernel_size)
    patches = kernel == _pair(module.stride)
    module.stride = (1, 1)
    if isinstance(module, nn.Conv2d):
        if patches and kernel != (1, 1) and module.padding == (0, 0):
            module.padding = (kernel[0] // 2, kernel[1] // 2)
    elif patches:  # a 2 × 2 pool of stride 2 would lose one pixel at stride 1, and part from a residual arm
        module.kernel_size, module.padding = (1, 1), (0, 0)


# Its stride says whether it has a depthwise convolution at all; the merged one takes that of its first branch.
_RECALL_OTHERWISE = ("GhostBottleneckV3",)


def _tell_branches(net: nn.Module, changed: nn.Module) -> None:
    """Tell blocks that are merged later (RepVGG, MobileOne …): they recall the stride for the merged convolution."""
    for block in net.modules():
        merges = any(hasattr(block, name) for name in ("reparameterize", "fuse", "switch_to_deploy"))
        merges &= type(block).__name__ not in _RECALL_OTHERWISE
        if merges and hasattr(block, "stride") and any(module is changed for module in block.modules()):
            block.stride = 1  # type: ignore[assignment]


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))  # type: ignore[call-overload]


class StridedPointwise(nn.Conv2d):
    """A strided 1 × 1 convolution that in training takes every `stride`-th pixel first: the same sums.

    oneDNN's gradient of the weights writes past its workspace when such a convolution has fewer than 16 input channels
    in channels_last memory: a crash, or other numbers (github.com/uxlfoundation/oneDNN/issues/6035, torch 2.14).
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K, H / stride, W / stride); in evaluation, and so in an exported graph, one plain convolution."""
        if not self.training:
            return super().forward(images)
        down, across = _pair(self.stride)
        return nn.functional.conv2d(images[:, :, ::down, ::across], self.weight, self.bias, groups=self.groups)


def spare_onednn(net: nn.Module) -> nn.Module:
    """Return `net`, its narrow strided 1 × 1 convolutions replaced in place by `StridedPointwise` of equal weights."""
    for path, module in list(net.named_modules()):
        plain = type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.padding == (0, 0)
        if plain and max(_pair(module.stride)) > 1 and module.in_channels < _ONEDNN_BLOCK:
            assert isinstance(module, nn.Conv2d)
            shape = (module.in_channels, module.out_channels, 1)
            new = StridedPointwise(
                *shape, stride=_pair(module.stride), groups=module.groups, bias=module.bias is not None
            )
            new.weight, new.bias = module.weight, module.bias
            net.set_submodule(path, new)
    return net
