"""Our own small networks: families with a width dial, 4k to 1.2M parameters, that train fast on a CPU.

`tiny_cnn` and `tiny_resnet` are dense: with this few channels a dense 3 × 3 convolution keeps a CPU busier than a
depthwise one, and there are half as many layers to launch. `tiny_ds` is depthwise-separable: fewest MACs and
parameters, for microcontrollers and tight size limits. `tiny_sep` is for a budget of bytes: residual and
depthwise-separable. `tiny_vgg` is for a megabyte or more: dense, with pools.

`pool_cnn` is the two-convolution net with max pooling that tutorials and arXiv:2501.15547 build on: the reference.

All but it see the same pyramid: the trunk starts at 16–40 px whatever the input (one stride-2 convolution for each
halving above that) and halves three times, `tiny_resnet` and `tiny_sep` twice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flyweight.errors import ModelError

_TRUNK_SIDE = 40  # px: the largest side at which the first full-resolution stage is still cheap


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; (N, C, H, W) to (N, `width`, H / `stride`, W / `stride`)."""

    def __init__(self, in_chans: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chans, width, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class BasicBlock(nn.Module):
    """The two-convolution residual block of ResNet, with a 1 × 1 convolution where the shape changes.

    Source: He et al., Deep Residual Learning, arXiv:1512.03385, section 3.3, option B.
    """

    def __init__(self, in_chans: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_chans, width, stride=stride)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_chans != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_chans, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride)."""
        residual: Tensor = self.norm2(self.conv2(self.conv1(x)))
        out: Tensor = self.act(residual + self.shortcut(x))
        return out


def tiny_cnn(num_classes: int, in_chans: int, image_size: int, *, width: int = 16) -> nn.Sequential:
    """Return a plain stack of 3 × 3 convolutions: width, 2×, 4×, 4×; 4k parameters at width 4, 242k at 32."""
    widths = (2 * width, 4 * width, 4 * width)
    trunk: list[nn.Module] = []
    before = width
    for after in widths:
        trunk.append(ConvNormAct(before, after, stride=2))
        before = after
    return _assemble(_stem(in_chans, width, image_size), trunk, before, num_classes)


def tiny_resnet(num_classes: int, in_chans: int, image_size: int, *, width: int = 16, depth: int = 1) -> nn.Sequential:
    """Return a ResNet of 6 × `depth` + 2 layers and three stages: width, 2×, 4×; 78k parameters at width 16, depth 1.

    Source: depth 1, width 16 is the ResNet-8 of MLPerf Tiny, arXiv:2106.07597; depth 3 the ResNet-20 of
    arXiv:1512.03385, section 4.2. Changed: the stem strides when the input is larger than 40 px.
    """
    trunk: list[nn.Module] = []
    before = width
    for stage, after in enumerate((width, 2 * width, 4 * width)):
        for block in range(depth):
            trunk.append(BasicBlock(before, after, stride=2 if stage > 0 and block == 0 else 1))
            before = after
    return _assemble(_stem(in_chans, width, image_size), trunk, before, num_classes)


def tiny_ds(num_classes: int, in_chans: int, image_size: int, *, width: int = 16) -> nn.Sequential:
    """Return a depthwise-separable stack: width, 2×, 4×, 4×, 8×; 6k parameters at width 8, 253k at 64.

    Source: the blocks of MobileNet, arXiv:1704.04861, section 3.1.
    """
    trunk: list[nn.Module] = []
    before = width
    for after, stride in ((2 * width, 2), (4 * width, 2), (4 * width, 1), (8 * width, 2)):
        trunk += [ConvNormAct(before, before, stride=stride, groups=before), ConvNormAct(before, after, kernel=1)]
        before = after
    return _assemble(_stem(in_chans, width, image_size), trunk, before, num_classes)


class SepBlock(nn.Module):
    """A depthwise 3 × 3 and a pointwise convolution with a norm each, plus the input where shapes agree, then ReLU.

    The norm between the two has no parameters: what they would do, the weights around it do. Folded, it is gone without
    a trace, since its shift passes through the pointwise convolution into that one's bias.
    """

    def __init__(self, in_chans: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_chans, in_chans, 3, stride, 1, groups=in_chans, bias=False)
        self.inner_norm: nn.Module = nn.BatchNorm2d(in_chans, affine=False)
        self.pointwise = nn.Conv2d(in_chans, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.residual = stride == 1 and in_chans == width

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride)."""
        made: Tensor = self.norm(self.pointwise(self.inner_norm(self.depthwise(x))))
        out: Tensor = self.act(made + x if self.residual else made)
        return out

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Fold the inner norm into the two convolutions, in place; the name is the one timm's fold looks for."""
        norm = self.inner_norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        self.depthwise.weight *= scale.reshape(-1, 1, 1, 1)
        self.pointwise.bias = nn.Parameter(self.pointwise.weight[:, :, 0, 0] @ (-norm.running_mean * scale))
        self.inner_norm = nn.Identity()


def tiny_sep(
    num_classes: int,
    in_chans: int,
    image_size: int,
    *,
    width: int = 32,
    depth: int = 4,
    stem: int | None = None,
    second: int | None = None,
) -> nn.Sequential:
    """Return a stem and two stages of `depth` blocks of width and 1.5 × width; 17k parameters at width 32, depth 4.

    Args:
        stem: Channels of the first convolution, at full resolution; None: three quarters of the width.
        second: Channels of the second stage; None: 1.5 × width.

    Source: the blocks are those of MobileNet (arXiv:1704.04861) with the shortcuts of ResNet (arXiv:1512.03385).
    Changed: no activation between the two convolutions, as in Xception (arXiv:1610.02357, section 4.7).
    """
    before = stem or 3 * width // 4
    first = before
    trunk: list[nn.Module] = []
    for after in (width, second or 3 * width // 2):
        for number in range(depth):
            trunk.append(SepBlock(before, after, stride=1 if number else 2))
            before = after
    return _assemble(_stem(in_chans, first, image_size), trunk, before, num_classes)


def tiny_vgg(
    num_classes: int, in_chans: int, image_size: int, *, width: int = 32, wide: int = 3, depth: int = 2
) -> nn.Sequential:
    """Return a stem and three stages of `depth` 3 × 3 convolutions, each stage halved by its first one's max pool.

    Widths are width, then twice `wide` × width: 1.98 M parameters at width 64 and wide 4, 0.50 M at 32 and 4. Dense and
    without shortcuts: made to learn fast where bytes are not the limit.

    Source: the network of Jordan, arXiv:2404.00498 (airbench94). Changed: batch norm and ReLU before the pool, so that
    both fold and the file computes in integers; an ordinary first convolution in place of the whitening one.
    """
    stem = max(16, width // 2)
    trunk: list[nn.Module] = []
    before = stem
    for after in (width, wide * width, wide * width):
        for number in range(depth):
            trunk.append(ConvNormAct(before, after))
            trunk += [nn.MaxPool2d(2)] * (number == 0)
            before = after
    return _assemble(_stem(in_chans, stem, image_size), trunk, before, num_classes)


def pool_cnn(num_classes: int, in_chans: int, image_size: int, *, widths: tuple[int, int] = (10, 20)) -> nn.Sequential:
    """Return conv 3 × 3 without padding, ReLU, max pool 2, twice, then one dense layer over the whole map.

    Source: the sub-model of arXiv:2501.15547 as its published totals give it: widths (10, 20) have 6,930 parameters at
    28 px grey and 9,310 at 32 px colour. Changed: initialised as in Keras (Glorot uniform, biases zero).
    """
    side = ((image_size - 2) // 2 - 2) // 2
    if side < 1:
        raise ModelError(f"pool_cnn cannot take {image_size} px", do="use images of 10 px or more")
    trunk: list[nn.Module] = []
    before = in_chans
    for after in widths:
        trunk += [nn.Conv2d(before, after, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        before = after
    network = nn.Sequential(*trunk, nn.Flatten(1), nn.Linear(before * side * side, num_classes))
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return network


def _stem(in_chans: int, width: int, image_size: int) -> list[nn.Module]:
    """Return stride-2 convolutions down to at most 40 px, or one of stride 1 when the input is that small already."""
    halvings = max(0, math.ceil(math.log2(image_size / _TRUNK_SIDE)))
    strides = [2] * halvings or [1]
    return [ConvNormAct(in_chans if i == 0 else width, width, stride=stride) for i, stride in enumerate(strides)]


def _assemble(stem: list[nn.Module], trunk: list[nn.Module], features: int, num_classes: int) -> nn.Sequential:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(features, num_classes)]
    network = nn.Sequential(*stem, *trunk, *head)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
