"""Early exit: a cheap head half-way answers images it is sure of; the others go on to the end.

The network is cut at a node that all of it passes through. In evaluation the answer of an image is the early head's
where its confidence reaches the threshold, and the network's own everywhere else: an image that goes on gets exactly
the answer it had before. In training both answers are given, (N, 2, K), and their losses add up.
Source: Teerapittayanon et al. 2016, "BranchyNet" (arXiv:1709.01686). Changed: confidence in place of entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from flyweight.errors import ModelError
from flyweight.models.adapt import evaluating
from flyweight.models.quantize import trace_layers

NEVER = 2.0  # a confidence that none reaches


class EarlyExit(nn.Module):
    """A network in two parts with a head between them.

    Attributes:
        threshold: Confidence (0 to 1) of the early head from which its answer counts.
    """

    def __init__(self, normalize: nn.Module, first: nn.Module, early: nn.Module, rest: nn.Module, threshold: float):
        super().__init__()
        self.normalize, self.threshold = normalize, threshold
        self.net = nn.ModuleDict({"first": first, "early": early, "rest": rest})

    def features(self, images: Tensor) -> Tensor:
        """Return the map (N, C, H, W) at the cut."""
        found: Tensor = self.net["first"](self.normalize(images))
        return found

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N, K) of the early head and those of the end."""
        features = self.features(images)
        return self.net["early"](features), self.net["rest"](features)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) in evaluation, (N, 2, K) in training."""
        early, late = self.both(images)
        if self.training:
            return torch.stack([early, late], 1)
        return torch.where(self.sure(early)[:, None], early, late)

    def sure(self, early: Tensor) -> Tensor:
        """Return which images (N,) the early head answers."""
        return early.softmax(1).amax(1) >= self.threshold


class EarlyHead(nn.Module):
    """Means over a grid of the map, and one dense layer."""

    def __init__(self, channels: int, side: int, grid: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(side // grid)
        self.dense = nn.Linear(channels * (side // (side // grid)) ** 2, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, K) of a map (N, C, H, W)."""
        found: Tensor = self.dense(self.pool(features).flatten(1))
        return found


@dataclass(frozen=True)
class Cut:
    """A place where all of a network passes through one map.

    Attributes:
        node: Its name in the traced network.
        channels: Of the map.
        side: Of the map, in px.
        share: Of the multiply-accumulates that lie before it, 0 to 1.
    """

    node: str
    channels: int
    side: int
    share: float


def add_exit(network: nn.Module, name: str, example: Tensor, *, after: str, grid: int, threshold: float) -> EarlyExit:
    """Return the folded network (normalize, net) cut after a node, with an early head there; its weights go with it.

    Raises:
        ModelError: It cannot be traced, or there is no such place to cut it.
    """
    inner = network.get_submodule("net")
    graph = trace_layers(inner, name)
    found = {cut.node: cut for cut in cuts(network, name, example)}
    if after not in found:
        raise ModelError(
            f"{name} cannot be cut after {after!r}; it can after {len(found)} others",
            do=f"choose among {', '.join(list(found)[:8])} …"
            if found
            else "choose a network without dense connections",
        )
    cut = found[after]
    first, rest = _split(inner, graph.graph, after)
    with torch.no_grad():
        classes = int(network(example).shape[1])
    head = EarlyHead(cut.channels, cut.side, min(grid, cut.side), classes)
    return EarlyExit(network.get_submodule("normalize"), first, head, rest, threshold)


def cuts(network: nn.Module, name: str, example: Tensor) -> list[Cut]:
    """Return where the folded network (normalize, net) can be cut, from its beginning to its end.

    Args:
        example: One input, (1, C, S, S); its values do not matter.

    Raises:
        ModelError: It cannot be traced.
    """
    inner = network.get_submodule("net")
    graph = trace_layers(inner, name)
    watcher = _Watcher(graph)
    with evaluating(graph), torch.no_grad():
        watcher.run(network.get_submodule("normalize")(example))
    order = [node for node in graph.graph.nodes if node.op not in {"get_attr", "output"}]
    place = {node: index for index, node in enumerate(order)}
    reach = [
        max((place.get(user, len(order)) for user in node.users), default=index) for index, node in enumerate(order)
    ]
    total, furthest, found = max(sum(watcher.macs.values()), 1), 0, []
    passed = 0
    for index, node in enumerate(order):
        passed += watcher.macs.get(node, 0)
        alone = furthest <= index
        furthest = max(furthest, reach[index])
        shape = watcher.shapes.get(node, ())
        if alone and node.op != "placeholder" and len(shape) == 4 and shape[2] == shape[3] and 0 < passed < total:
            found.append(Cut(node.name, shape[1], shape[2], passed / total))
    return found


class _Watcher(fx.Interpreter):
    """Notes the shape of every value and the multiply-accumulates of every layer."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.macs: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape)
            module = self.module.get_submodule(str(n.target)) if n.op == "call_module" else None
            if isinstance(module, nn.Conv2d):
                self.macs[n] = value.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                self.macs[n] = value.numel() * module.in_features
        return value


def _split(inner: nn.Module, graph: fx.Graph, after: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return the part of a traced network up to a node, and the part from there on."""
    first, rest = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    behind: dict[fx.Node, fx.Node] = {}
    passed = False
    for node in graph.nodes:
        if not passed:
            copied[node] = first.node_copy(node, lambda other: copied[other])
            if node.name == after:
                first.output(copied[node])
                behind[node] = rest.placeholder("features")
                passed = True
            continue
        for needed in node.all_input_nodes:
            if needed not in behind:  # a parameter that is read where it stands
                behind[needed] = rest.node_copy(needed, lambda other: behind[other])
        behind[node] = rest.node_copy(node, lambda other: behind[other])
    return fx.GraphModule(inner, first), fx.GraphModule(inner, rest)
