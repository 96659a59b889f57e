"""ExecuTorch `.pte` for XNNPACK: float32, or int8 by torchao after training. One image at a time."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import ExportError
from flyweight.export.formats.format import Format, Original, Written, cannot, quiet
from flyweight.export.formats.torchexport import exported, expresses, lost
from flyweight.files import write_bytes

LAYERS = ("aten.conv2d", "aten.linear", "aten.convolution", "aten.addmm", "aten.mm", "aten.bmm")


def write(original: Original, precision: str, file: Path) -> Written:
    """Write the program. Raises ExportError."""
    with quiet():
        # A batch of one: XNNPACK would else plan memory for the largest batch that the file may be asked for.
        program = exported(original, batch=1)
        tool = f"executorch {metadata.version('executorch')}, XNNPACK"
        if precision == "int8":
            program = _quantized(program, original)
            tool += f", torchao {metadata.version('torchao')} after training, {len(original.calibration)} images"
        layers, in_float = layers_of(program)
        content, outside = _lowered(program, original)
    write_bytes(file, content)
    notes = (f"Outside of XNNPACK run: {', '.join(outside)}",) if outside else ()
    return Written(tool, (), layers, in_float if precision == "int8" else (), (*notes, *lost(original)))


def _quantized(program: Any, original: Original) -> Any:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    # Flat in between: the strides of a dimension of one channel could be any, and would be part of the program.
    flat = np.ascontiguousarray(original.calibration).ravel()
    images = torch.from_numpy(flat.reshape(original.calibration.shape))
    with torch.no_grad():
        for i in range(len(images)):
            prepared(images[i : i + 1])
        return torch.export.export(convert_pt2e(prepared), (images[:1],), strict=False)


def _lowered(program: Any, original: Original) -> tuple[bytes, tuple[str, ...]]:
    """Return the file, and the operators that XNNPACK does not take. Raises ExportError."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    try:
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        operators = [str(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"]
        content = bytes(edge.to_executorch().buffer)
    except Exception as error:  # ExportError of its own, RuntimeError, and torch's verifier: no common class
        text = " ".join(str(error).split())
        found = re.search(r"(aten[.:][\w.:]+)", text)
        if found:
            content = original.variant.file.read_bytes()
            raise cannot("ExecuTorch", found[1], text[:200], content, ("executorch",)) from error
        raise ExportError(
            f"executorch cannot lower the network: {text[:300]}", do="convert to another format"
        ) from error
    own = ("executorch_call_delegate", "getitem")
    return content, tuple(
        sorted({_short(name) for name in operators if not name.endswith(own) and "getitem" not in name})
    )


def _short(name: str) -> str:
    return name.split("<EdgeOpOverload: ")[-1].split(">")[0].removesuffix(".default")


def layers_of(program: Any) -> tuple[int, tuple[str, ...]]:
    """Return how many layers a program has, and those that are not between quantized tensors, by their nodes."""
    found, floats = 0, []
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target).startswith(LAYERS):
            found += 1
            given, weight = node.args[0], node.args[1]
            if not all("dequantize" in str(getattr(one, "target", "")) for one in (given, weight)):
                floats.append(node.name)
    return found, tuple(floats)


FORMAT = Format(
    name="executorch",
    title="ExecuTorch",
    suffix=".pte",
    backend="executorch",
    extra="executorch",
    packages=("torch", "executorch", "torchao"),
    precisions=("fp32", "int8"),
    calibrated=("int8",),
    carries="in the bundle around it: the file has no place for them",
    write=write,
    expresses=expresses,
)
