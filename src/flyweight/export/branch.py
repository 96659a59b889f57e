"""A network with an early exit as one ONNX file: an `If` that computes the rest only where some image needs it.

One image is either answered early, and nothing after the cut runs, or late. In a batch the rest runs when any image of
it needs it, and each image gets the answer it would have got alone. Input and output are those of every other file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

from flyweight.models.exits import EarlyExit

FEATURES, EARLY, LATE = "features", "early", "late"
_PREFIX = "net.late."


class Beginning(nn.Module):
    """Images to the map at the cut, and to the early head's logits."""

    def __init__(self, network: EarlyExit) -> None:
        super().__init__()
        self.normalize = network.normalize
        self.net = nn.ModuleDict({"first": network.net["first"], "early": network.net["early"]})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (N, C, H, W) and the early logits (N, K)."""
        features = self.net["first"](self.normalize(images))
        return features, self.net["early"](features)


class Ending(nn.Module):
    """The map at the cut to the last logits."""

    def __init__(self, network: EarlyExit) -> None:
        super().__init__()
        self.rest = network.net["rest"]

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        found: Tensor = self.rest(features)
        return found


def join(beginning: onnx.ModelProto, ending: onnx.ModelProto, threshold: float, output: str) -> onnx.ModelProto:
    """Return the two graphs as one, with the ending inside an `If`.

    Args:
        beginning: Gives `features` and `early`.
        ending: Takes `features` and gives `late`.
        threshold: Confidence from which the early answer counts.
        output: Name of the joined output.
    """
    ending = compose.add_prefix(ending, _PREFIX)
    graph = beginning.graph
    (logits,) = (value for value in graph.output if value.name == EARLY)
    outer = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    outer.type.CopyFrom(logits.type)
    constants = {
        "exit.threshold": numpy_helper.from_array(np.array([[threshold]], np.float32), "exit.threshold"),
        "exit.axes": numpy_helper.from_array(np.array([1], np.int64), "exit.axes"),
    }
    nodes = [
        helper.make_node("Softmax", [EARLY], ["exit.probs"], axis=1),
        helper.make_node("ReduceMax", ["exit.probs", "exit.axes"], ["exit.confidence"], keepdims=1),
        helper.make_node("GreaterOrEqual", ["exit.confidence", "exit.threshold"], ["exit.sure"]),
        helper.make_node("Cast", ["exit.sure"], ["exit.ones"], to=TensorProto.INT32),
        helper.make_node("ReduceMin", ["exit.ones"], ["exit.all"], keepdims=0),
        helper.make_node("Cast", ["exit.all"], ["exit.done"], to=TensorProto.BOOL),
    ]
    early = helper.make_graph(
        [helper.make_node("Identity", [EARLY], ["exit.answer"])], "early", [], [_named(outer, "exit.answer")]
    )
    start = helper.make_node("Identity", [FEATURES], [_PREFIX + FEATURES])
    choose = helper.make_node("Where", ["exit.sure", EARLY, _PREFIX + LATE], ["exit.chosen"])
    late = helper.make_graph(
        [start, *ending.graph.node, choose], "late", [], [_named(outer, "exit.chosen")], list(ending.graph.initializer)
    )
    nodes.append(helper.make_node("If", ["exit.done"], [output], then_branch=early, else_branch=late))
    graph.node.extend(nodes)
    graph.initializer.extend(constants.values())
    del graph.output[:]
    graph.output.append(outer)
    return beginning


def _named(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    made = onnx.ValueInfoProto()
    made.CopyFrom(value)
    made.name = name
    return made
