"""A network as one ONNX file: uint8 images in, logits out, everything a runtime needs to know inside it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from flyweight import __version__
from flyweight.errors import ExportError
from flyweight.export.branch import EARLY, FEATURES, LATE, Beginning, Ending, join
from flyweight.export.qdq import to_qdq
from flyweight.export.tidy import shorten, tidy
from flyweight.files import write_bytes
from flyweight.models.adapt import evaluating
from flyweight.models.architecture import Architecture, fold
from flyweight.models.exits import EarlyExit

OPSET = 18  # what every current runtime and converter reads
INPUT, OUTPUT = "images", "logits"


@dataclass(frozen=True)
class Metadata:
    """What the file says about itself, in `metadata_props`.

    Attributes:
        classes: Class names in the order of the logits.
        preprocess: What `Preprocess.to_json()` gives.
        provenance: Where the weights come from; JSON values.
    """

    classes: Sequence[str] = ()
    preprocess: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None

    def props(self, architecture: Architecture) -> dict[str, str]:
        """Return the entries of `metadata_props`, JSON where they are structured."""
        entries: dict[str, Any] = {
            "classes": list(self.classes),
            "preprocess": dict(self.preprocess or {}),
            "provenance": dict(self.provenance or {}),
            "architecture": architecture.to_json(),
        }
        texts = {key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in entries.items() if value}
        return {**texts, "flyweight": __version__}


def to_onnx(network: nn.Module, architecture: Architecture, path: Path, metadata: Metadata | None = None) -> Path:
    """Write `network` as an ONNX file at `path`, whole or not at all; folded first if it is not yet.

    The graph takes `images` (N, C, S, S) uint8 with a free N and gives `logits` (N, K) float32. The same weights give
    the same bytes.

    Raises:
        ExportError: torch cannot export this network.
        OutputError: `path` cannot be written.
    """
    write_bytes(Path(path), onnx_bytes(network, architecture, metadata))
    return Path(path)


def export_untrained(architecture: Architecture, path: Path) -> Path:
    """Write the network of `architecture` with fresh weights: the same graph and size as trained, to be timed.

    Raises:
        ModelError: The architecture cannot be built.
        ExportError: torch cannot export this network.
        OutputError: `path` cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = unsettle(architecture.build())
        if architecture.quantized:  # give its quantizers ranges
            noise = architecture.example(8).random_(0, 256)
            network.train()(noise)
        return to_onnx(network.eval(), architecture, path)


def unsettle(network: nn.Module) -> nn.Module:
    """Fill fresh biases, norms and scales, each of one value, with noise: an exporter would optimise them away."""
    norms = ("running_mean", "running_var")
    buffers = ((name, buffer) for name, buffer in network.named_buffers() if name.endswith(norms))
    for _, tensor in (*network.named_parameters(), *buffers):
        if tensor.numel() and bool((tensor == tensor.flatten()[0]).all()):
            tensor.data.uniform_(0.5, 1.5)
    return network


def onnx_bytes(network: nn.Module, architecture: Architecture, metadata: Metadata | None = None) -> bytes:
    """Return the bytes of the ONNX file that `to_onnx` writes."""
    folded, architecture = fold(copy.deepcopy(network).cpu(), architecture)
    simple = plain(folded)
    props = (metadata or Metadata()).props(architecture)
    if isinstance(simple, EarlyExit):
        model = _in_two_parts(simple, architecture, props)
    else:
        held = to_qdq(simple) if architecture.quantized else simple
        model = _convert(held, architecture.example(2), architecture.name)
        tidy(model, props)
    if architecture.quantized:
        shorten(model)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _in_two_parts(network: EarlyExit, architecture: Architecture, props: Mapping[str, str]) -> onnx.ModelProto:
    """Return the file of a network with an early exit (`export.branch`)."""
    example = architecture.example(2)
    with evaluating(network), torch.no_grad():
        features = network.features(example)
    names = {"outputs": [FEATURES, EARLY]}
    beginning = _convert(Beginning(network), example, architecture.name, **names)
    ending = _convert(Ending(network), features, architecture.name, inputs=[FEATURES], outputs=[LATE])
    tidy(beginning, props)
    tidy(ending, {})
    return join(beginning, ending, network.threshold, OUTPUT)


class _GlobalMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def plain(network: nn.Module) -> nn.Module:
    """Prepare a network for torch.export, in place: the same function in operators it translates well.

    In-place activations are taken apart in Python, which doubles the time; an adaptive pool to one pixel becomes index
    arithmetic on the batch when its input lies in channels-last order, as after ConvNeXt's norms.
    """
    for module in list(network.modules()):
        if isinstance(getattr(module, "inplace", None), bool):
            module.inplace = False  # type: ignore[assignment]
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, _GlobalMean())
    return network


def _convert(
    network: nn.Module,
    example: Tensor,
    name: str,
    *,
    inputs: Sequence[str] = (INPUT,),
    outputs: Sequence[str] = (OUTPUT,),
) -> onnx.ModelProto:
    """Return what torch makes of a network; the first dimension of what it takes is free.

    Args:
        example: What it takes, two of it: a batch of 1 would be taken for a constant.
        name: Of the network, for people.
    """
    batch = torch.export.Dim("N")
    try:
        with _quiet(), evaluating(network), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError) as error:  # torch.onnx's errors are RuntimeErrors
        raise ExportError(
            f"torch cannot export {name} to ONNX: {str(error).strip().splitlines()[0][:200]}",
            do=f"choose a network of `flyweight models`; each is tested for export, {name} may not be",
        ) from error
    if program is None:
        raise ExportError(f"torch gave no ONNX program for {name}", do="report this as a bug")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and deprecation notes from the user; its errors still come as exceptions."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
