"""A quantized network in the operators of ONNX: int8 weights, and QuantizeLinear / DequantizeLinear between layers.

Runtimes recognise the pattern and compute in integers. Nothing is rounded here that training did not round, but for
biases: int32, in units of input scale × weight scale, far finer than a level.
Source: ONNX operators QuantizeLinear and DequantizeLinear; ONNX Runtime, "Quantize ONNX models", QDQ format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from flyweight.models.quantize import WEIGHT_LEVELS, Quantizer, file_scale, input_scales
from flyweight.runtime import operators
from flyweight.runtime.backends import DEFAULT


def to_qdq(network: nn.Module) -> nn.Module:
    """Replace quantizers and quantized layers of a copied network (normalize, net) in place, and return it."""
    graph = network.get_submodule("net")
    assert isinstance(graph, fx.GraphModule), "only a network that quantize_network made"
    scales = input_scales(graph)
    for path, module in list(graph.named_modules()):
        if isinstance(module, Quantizer):
            graph.set_submodule(path, _Activation(module))
    for path, scale in scales.items():
        layer = graph.get_submodule(path)
        if parametrize.is_parametrized(layer, "weight"):
            graph.set_submodule(path, _Layer(layer, scale))
    return network


def _dequantize(values: Tensor, scale: Tensor, zero_point: Tensor | None, shape: Any, axis: int | None) -> Tensor:
    inputs = (values, scale) if zero_point is None else (values, scale, zero_point)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    found: Tensor = torch.onnx.ops.symbolic("DequantizeLinear", inputs, attributes, dtype=torch.float32, shape=shape)
    return found


class _Activation(nn.Module):
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        scale, zero_point = quantizer.grid()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point.to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        inputs = (x, self.scale, self.zero_point)
        levels = torch.onnx.ops.symbolic("QuantizeLinear", inputs, dtype=torch.uint8, shape=x.shape)
        return _dequantize(levels, self.scale, self.zero_point, x.shape, None)


class _Layer(nn.Module):
    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    bias_scale: Tensor

    def __init__(self, layer: nn.Module, input_scale: Tensor) -> None:
        super().__init__()
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        original = cast(Tensor, layer.get_parameter("parametrizations.weight.original")).detach()
        bias = None if layer.bias is None else layer.bias.detach()
        scale = file_scale(original, bias, input_scale)
        each = scale.reshape(-1, *[1] * (original.dim() - 1))
        self.register_buffer("weight", (original / each).round().clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS).to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias_scale", scale * input_scale)
        units = None if bias is None else (bias / self.bias_scale).round().to(torch.int32)
        self.register_buffer("bias", units)
        self.convolution = {
            key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups") if hasattr(layer, key)
        }

    def forward(self, x: Tensor) -> Tensor:
        weight = _dequantize(self.weight, self.weight_scale, None, self.weight.shape, 0)
        bias = None
        if self.bias is not None:
            bias = _dequantize(self.bias, self.bias_scale, None, self.bias.shape, 0)
        if not self.convolution:
            return nn.functional.linear(x, weight, bias)
        return nn.functional.conv2d(x, weight, bias, **self.convolution)


def left_in_float(path: Path) -> list[str]:
    """Return the layers of an int8 file that ONNX Runtime computes in float, but the one that gives the logits."""
    return list(operators.left_in_float(operators.operators(path, DEFAULT)))
