"""What a method that changes a file may use, and what it gives: the bytes of another file that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.split import split_from_rule
from flyweight.errors import CompressError
from flyweight.measure.trial import MARGIN
from flyweight.runtime.bundle import Bundle, Variant

BATCH = 64


@dataclass(frozen=True)
class FileContext:
    """Where a method works.

    Attributes:
        dataset: What the bundle was trained on.
        source: The variant whose file is changed.
        margin: Of accuracy, for choices that are made on training images.
    """

    dataset: Dataset
    bundle: Bundle
    source: Variant
    margin: float = MARGIN

    def model(self) -> onnx.ModelProto:
        """Return the graph of the source. Raises CompressError where it is no float ONNX file."""
        if self.source.format != "onnx" or self.source.precision != "fp32":
            raise CompressError(
                f"the variant {self.source.name!r} of {self.bundle.name!r} is a {self.source.format} file in "
                f"{self.source.precision}; only a float onnx file is made smaller",
                do="name the float variant: --variant fp32",
            )
        return onnx.load_model_from_string(self.source.file.read_bytes())

    def training_images(self, most: int, skip: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return up to `most` training images (N, C, S, S) uint8, evenly spaced, not augmented, and labels (N,).

        Args:
            skip: Leave out the ones that a call for so many gives, where there are others.
        """
        if not self.bundle.split:
            raise CompressError(
                f"the bundle {self.bundle.name!r} recorded no split, so its training images are not known",
                do="export it again from its run",
            )
        chosen = split_from_rule(self.dataset, self.bundle.split).train
        if skip and len(chosen) > skip:
            chosen = np.delete(chosen, _spaced(len(chosen), skip))
        chosen = chosen[_spaced(len(chosen), most)]
        pixels = np.asarray(build_fixed(self.dataset, chosen, self.bundle.preprocess).pixels)
        labels = np.array([self.bundle.classes.index(self.dataset.classes[i]) for i in self.dataset.labels[chosen]])
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels


@dataclass(frozen=True)
class Made:
    """A changed file.

    Attributes:
        name: Of the variant.
        content: An ONNX file.
        precision: Of its weights: int8, fp16, palette8, …
        kept: Layers that were meant to stay in float, by their names in the source.
        kept_weights: The same by the tensors of their weights in this file, whose nodes have no names.
        facts: What was decided on the way, for the record; JSON values.
        said: The same for people.
    """

    name: str
    content: bytes
    precision: str
    kept: tuple[str, ...] = ()
    kept_weights: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def answers(content: bytes | Path, images: NDArray[np.uint8], *, optimized: bool = True) -> NDArray[np.float32]:
    """Return logits (N, K) of an ONNX file for images (N, C, S, S), through ONNX Runtime.

    Args:
        optimized: False: each operator as the file has it. An int8 file is then computed in float, with its rounding
            written out: a second way to the same answers.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    held = content.read_bytes() if isinstance(content, Path) else content
    session = onnxruntime.InferenceSession(held, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    parts = [session.run(None, {given: images[at : at + BATCH]})[0] for at in range(0, len(images), BATCH)]
    found: NDArray[np.float32] = np.concatenate(parts)
    return found


def refuse_branches(model: onnx.ModelProto, method: str) -> None:
    """Raise CompressError for a file with an early exit, whose layers lie inside a branch."""
    if any(node.op_type == "If" for node in model.graph.node):
        raise CompressError(
            f"{method} cannot reach the layers of a file with an early exit: they lie inside a branch",
            do="compress the run without exit; or qat first, then no exit",
        )


def weights_of(model: onnx.ModelProto, least: int) -> Sequence[onnx.TensorProto]:
    """Return the float tensors of at least so many values that convolutions and dense layers read."""
    read = {
        name
        for node in model.graph.node
        if node.op_type in {"Conv", "Gemm", "MatMul", "ConvTranspose"}
        for name in node.input[1:2]
    }
    kind = onnx.TensorProto.FLOAT
    return [t for t in model.graph.initializer if t.name in read and t.data_type == kind and np.prod(t.dims) >= least]


def _spaced(length: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(np.int64))
