"""The program of torch.export (`.pt2`): what other tools of PyTorch take, with a free batch.

TorchScript, which came before it, is deprecated by PyTorch itself and not written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flyweight.errors import ExportError
from flyweight.export.formats.format import Format, Original, Written


def write(original: Original, precision: str, file: Path) -> Written:
    """Write the program, with class names and preprocessing as its extra files. Raises ExportError."""
    import torch

    torch.export.save(exported(original, batch=None), file, extra_files=original.texts)
    return Written(tool=f"torch.export of torch {torch.__version__}")


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
        raise ExportError(
            f"torch.export cannot trace the network: {str(error).strip().splitlines()[0][:300]}",
            do="convert to a format that is written from the ONNX file: openvino, litert",
        ) from error


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
)
