"""The program of torch.export (`.pt2`): what other tools of PyTorch take, with a free batch.

TorchScript, which came before it, is deprecated by PyTorch itself and not written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flyweight.errors import ExportError
from flyweight.export.formats.format import MORE, Format, Original, Written, cannot, formats_that_can

BRANCHES = {"If", "Loop", "Scan"}
PLAIN = {"", "ai.onnx"}  # domains of operators that any runtime has


def write(original: Original, precision: str, file: Path) -> Written:
    """Write the program, with class names and preprocessing as its extra files. Raises ExportError."""
    import torch

    torch.export.save(exported(original, batch=None), file, extra_files=original.texts)
    return Written(tool=f"torch.export of torch {torch.__version__}", notes=lost(original))


def exported(original: Original, batch: int | None) -> Any:
    """Return the program of the folded network; `batch` None: it takes any number of images.

    Raises:
        ExportError: torch cannot trace the network.
    """
    import torch

    preprocess = original.bundle.preprocess
    side = preprocess.image_size
    images = torch.zeros(batch or 2, preprocess.channels, side, side, dtype=torch.uint8)
    free = ({0: torch.export.Dim("N")},) if batch is None else None
    try:
        with torch.no_grad():
            return torch.export.export(original.network.eval(), (images,), dynamic_shapes=free, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:  # torch.export's errors are of these kinds
        raise _untraced(str(error), original) from error


def _untraced(error: str, original: Original) -> ExportError:
    """Name the operator that torch.export stopped at, where its error does."""
    content, text = original.variant.file.read_bytes(), " ".join(error.split())
    without = ("torch-export", "executorch")  # the one begins with the program of the other
    found = re.search(r"\b((?:torch\.ops\.)?(?:aten|prim|torchvision)(?:\.|::)\w+)", text)
    operator = found[1] if found else "If: a way that depends on what is computed" if "data-dependent" in text else None
    if operator:
        return cannot("torch.export", operator, text[:200], content, without)
    can = formats_that_can(content, without)
    return ExportError(
        f"torch.export cannot trace the network: {text[:300]}",
        do=f"convert to a format that is written from the ONNX file: {', '.join(can) or 'none here can express it'}",
        more=f"{MORE}#what-a-format-cannot-express",
    )


def expresses(content: bytes) -> bool:
    """Tell whether a program of torch computes what a float ONNX file does: branches are not traced, and get lost."""
    import onnx

    graph = onnx.load_model_from_string(content).graph
    return not any(node.op_type in BRANCHES or node.domain not in PLAIN for node in graph.node)


def lost(original: Original) -> tuple[str, ...]:
    """Return what a program says of an early exit: it has none, since tracing takes both ways."""
    from flyweight.models.exits import EarlyExit

    if not any(isinstance(one, EarlyExit) for one in original.network.modules()):
        return ()
    return ("The early exit is LOST in this format: every image is computed to the end, at the full cost",)


FORMAT = Format(
    name="torch-export",
    title="torch.export",
    suffix=".pt2",
    backend="torch-export",
    extra="train",
    packages=("torch",),
    precisions=("fp32",),
    calibrated=(),
    carries="in the file (extra_files) and in the bundle around it",
    write=write,
    expresses=expresses,
)
