"""A folded network that computes as its int8 file will: quantizers between its layers and on its weights.

Weights: one scale per output channel, symmetric, -127..127. Activations: one scale per tensor, 0..255 with a zero
point. Ranges follow the training images, so quantization-aware training is nothing but training this network.

Where quantizers sit is decided by structure alone (like the fold), so `Architecture.build` repeats it: at the input,
behind every convolution, dense layer, sum and mean (behind its ReLU where that is its only reader), and before every
layer that would read anything else. Logits stay float.
Source: Jacob et al. 2017 (arXiv:1712.05877); Krishnamoorthi 2018 (arXiv:1806.08342), section 3.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from flyweight.errors import ModelError

WEIGHT_LEVELS, ACTIVATION_LEVELS = 127, 255
LARGEST_BIAS = 2.0**30  # of int32, in units
RANGE_RATE = 0.01  # of the running average of ranges, once 100 batches have been seen

_LAYERS = (nn.Conv2d, nn.Linear)
_MEANS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_RELUS = (nn.ReLU, nn.ReLU6)
_SAME_VALUES = (nn.MaxPool2d, nn.Flatten, nn.Dropout)
_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_MEAN = {torch.mean, "mean", nn.functional.adaptive_avg_pool2d, nn.functional.avg_pool2d}
_RELU = {torch.relu, nn.functional.relu, nn.functional.relu6, "relu", "relu_"}
_SAME = {torch.flatten, nn.functional.max_pool2d, "flatten", "reshape", "view"}


class Quantizer(nn.Module):
    """Rounds activations to 256 levels between the running ends of their range; gradients pass where it does not cut.

    In training mode the range follows the batches.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return scale (0-dim float32) and zero point (0-dim int32, 0..255); zero is always a level."""
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=0.0)
        scale = ((high - low) / ACTIVATION_LEVELS).clamp(min=1e-8)
        return scale, (-low / scale).round().clamp(0, ACTIVATION_LEVELS).to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Return x on the grid."""
        if self.training:
            self._follow(x.detach())
        scale, zero_point = self.grid()
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero_point, 0, ACTIVATION_LEVELS)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        self.batches += 1
        rate = (1.0 / self.batches).clamp(min=RANGE_RATE)
        low, high = torch.aminmax(x)
        self.low += rate * (low.float() - self.low)
        self.high += rate * (high.float() - self.high)


class QuantizedWeight(nn.Module):
    """A parametrization: weights (K, ...) on 255 levels for each output channel, gradients as if they were not."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights on their grids."""
        zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(
            weight, weight_scale(weight), zeros, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )


def weight_scale(weight: Tensor) -> Tensor:
    """Return the scale (K,) of each output channel of weights (K, ...)."""
    return (weight.detach().abs().flatten(1).amax(1) / WEIGHT_LEVELS).clamp(min=1e-8)


def quantize_network(network: nn.Module, name: str, keep_float: Sequence[str] = ()) -> nn.Module:
    """Return the folded network `network` (normalize, net) with quantizers put in, in place.

    Args:
        name: What to call it in errors.
        keep_float: Layers inside `net` whose weights stay float; their outputs are quantized like the others'.

    Raises:
        ModelError: The network cannot be traced (its forward branches on values), or a layer to keep does not exist.
    """
    inner = network.get_submodule("net")
    layers = [path for path, module in inner.named_modules() if isinstance(module, _LAYERS)]
    unknown = [path for path in keep_float if path not in layers]
    if unknown:
        raise ModelError(
            f"there is no layer {unknown[0]!r} to keep in float among the {len(layers)} of {name}",
            do=f"choose among {', '.join(layers[:3])} … {layers[-1]}",
        )
    graph = trace_layers(inner, name)
    _forget_identities(graph)
    _insert(graph)
    for path in layers:
        if path not in keep_float:
            parametrize.register_parametrization(graph.get_submodule(path), "weight", QuantizedWeight())
    network.add_module("net", graph)
    return network.requires_grad_(True)  # the biases that folding made learn too


def input_scales(graph: fx.GraphModule) -> dict[str, Tensor]:
    """Return the scale (0-dim) of what each convolution and dense layer reads, by the path of the layer."""
    found: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op != "call_module" or not isinstance(graph.get_submodule(str(node.target)), _LAYERS):
            continue
        reader = node.args[0]
        assert isinstance(reader, fx.Node)
        quantizer = graph.get_submodule(str(reader.target))
        assert isinstance(quantizer, Quantizer), f"{node.target} reads no quantizer"
        found[str(node.target)] = quantizer.grid()[0]
    return found


def file_scale(weight: Tensor, bias: Tensor | None, input_scale: Tensor) -> Tensor:
    """Return the scale (K,) of weights (K, ...) in a file, whose biases are int32 in units of it and the input's.

    A channel of next to no weights would need a bias of more units than there are.
    """
    scale = weight_scale(weight)
    return scale if bias is None else torch.maximum(scale, bias.detach().abs() / (input_scale * LARGEST_BIAS))


@torch.no_grad()
def bias_on_grid(network: nn.Module) -> nn.Module:
    """Return a copy of a quantized network whose biases are whole numbers of units, as its file holds them."""
    made = copy.deepcopy(network)
    graph = made.get_submodule("net")
    assert isinstance(graph, fx.GraphModule), "only a network that quantize_network made"
    for path, scale in input_scales(graph).items():
        layer = graph.get_submodule(path)
        if layer.bias is not None and parametrize.is_parametrized(layer, "weight"):
            weight = layer.get_parameter("parametrizations.weight.original")
            units = file_scale(weight, cast(Tensor, layer.bias), scale) * scale
            layer.get_parameter("bias").copy_((cast(Tensor, layer.bias) / units).round() * units)
    return made


def without_rounding(network: nn.Module) -> nn.Module:
    """Return a copy of a quantized network whose activations are not rounded to levels; its weights are."""
    made = copy.deepcopy(network)
    for path, module in list(made.named_modules()):
        if isinstance(module, Quantizer):
            made.set_submodule(path, nn.Identity())
    return made


class _Tracer(fx.Tracer):
    """Takes every convolution and dense layer as one operation, those of other libraries too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


def trace_layers(inner: nn.Module, name: str) -> fx.GraphModule:
    """Return the network as a graph of its layers. Raises ModelError where its forward pass branches on values."""
    try:
        return fx.GraphModule(inner, _Tracer().trace(inner))
    except Exception as error:  # fx raises whatever the network's own code does with a proxy
        raise ModelError(
            f"{name} cannot be quantized in training or cut in two: its forward pass cannot be traced "
            f"({type(error).__name__}: {str(error).splitlines()[0][:120]})",
            do="choose one of the tiny family (tiny_*), or quantize after training",
        ) from error


def _forget_identities(graph: fx.GraphModule) -> None:
    """Take out what folding left of batch norms, so that a ReLU is seen to follow its convolution."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()


def _insert(graph: fx.GraphModule) -> None:
    """Put `quantize_N` modules into the traced network."""
    behind: dict[fx.Node, str] = {}  # node: the quantizer whose values it gives
    count = 0

    def quantized(node: fx.Node, path: str) -> fx.Node:
        with graph.graph.inserting_after(node):
            new = graph.graph.call_module(path, (node,))
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        behind[new] = path
        return new

    def fresh() -> str:
        nonlocal count
        path = f"quantize_{count}"
        graph.add_module(path, Quantizer())
        count += 1
        return path

    for node in list(graph.graph.nodes):
        if node.op == "placeholder":
            quantized(node, fresh())
            continue
        given = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if _is(graph, node, _LAYERS, set()) and given is not None and given not in behind:
            node.replace_input_with(given, quantized(given, fresh()))
        if _feeds_output(node):
            continue
        if _is(graph, node, _SAME_VALUES, _SAME) and given in behind:
            quantized(node, behind[given])  # values stay on the grid of their input
        elif _ends_layer(graph, node):
            quantized(node, fresh())
    graph.graph.lint()
    graph.recompile()


def _ends_layer(graph: fx.GraphModule, node: fx.Node) -> bool:
    """True for what makes new values, with the ReLU that alone reads them."""
    if _is(graph, node, _RELUS, _RELU):
        given = node.args[0]
        return isinstance(given, fx.Node) and _is_maker(graph, given)
    return _is_maker(graph, node) and not _relu_follows(graph, node)


def _is_maker(graph: fx.GraphModule, node: fx.Node) -> bool:
    return _is(graph, node, (*_LAYERS, *_MEANS), _ADD | _MEAN)


def _relu_follows(graph: fx.GraphModule, node: fx.Node) -> bool:
    readers = list(node.users)
    return len(readers) == 1 and _is(graph, readers[0], _RELUS, _RELU)


def _feeds_output(node: fx.Node) -> bool:
    """True for the layer that gives the logits, and what only reshapes them."""
    readers = list(node.users)
    if len(readers) != 1:
        return False
    reader = readers[0]
    return reader.op == "output" or (reader.target in {*_SAME, torch.squeeze, "squeeze"} and _feeds_output(reader))


def _is(graph: fx.GraphModule, node: fx.Node, modules: tuple[type, ...], functions: set[Any]) -> bool:
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), modules)
    return node.op in {"call_function", "call_method"} and node.target in functions
