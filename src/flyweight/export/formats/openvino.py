"""OpenVINO IR: float32, bfloat16, or int8 by NNCF after training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flyweight.errors import ExportError
from flyweight.export.formats.format import Format, Original, Written, cannot, quiet
from flyweight.runtime.backends import import_backend
from flyweight.runtime.operators import operators


def write(original: Original, precision: str, file: Path) -> Written:
    """Write model.xml and model.bin. Raises ExportError."""
    import_backend("openvino")  # keeps its reports from the network
    import openvino

    from flyweight.runtime.backends.openvino import INFO, PRECISION

    try:
        model = openvino.Core().read_model(original.variant.file.read_bytes())
    except RuntimeError as error:
        raise _unread(str(error), original.variant.file.read_bytes()) from error
    tool = f"openvino {openvino.__version__}"
    if precision == "int8":
        model, tool = _quantized(model, original, tool)
    for key, text in {**original.texts, PRECISION: precision}.items():
        model.set_rt_info(text, [INFO, key])
    # Weights of bfloat16 files are kept in float16: half the bytes, and finer than what they are rounded to.
    openvino.save_model(model, str(file), compress_to_fp16=precision == "bf16")
    layers, in_float = computed(file, precision)
    return Written(tool, (file.with_suffix(".bin"),), layers, in_float)


def computed(file: Path, precision: str) -> tuple[int, tuple[str, ...]]:
    """Return how many layers this machine computes, and which of them in float32 though the precision is lower."""
    heavy = [one for one in operators(file, FORMAT.backend) if one.heavy]
    return len(heavy), tuple(one.name for one in heavy if one.dtype != precision)


def _quantized(model: Any, original: Original, tool: str) -> tuple[Any, str]:
    images = original.calibration
    with quiet():
        import nncf

        data = nncf.Dataset([images[i : i + 1] for i in range(len(images))])
        # Mixed: activations such as hard-swish reach below zero only a little, which symmetric levels would waste.
        done = nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(images))
    return done, f"{tool}, nncf {nncf.__version__} after training, {len(images)} images"


def expresses(content: bytes) -> bool:
    """Tell whether OpenVINO reads a float ONNX file."""
    import_backend("openvino")  # keeps its reports from the network
    import openvino

    try:
        openvino.Core().read_model(content)
    except RuntimeError:
        return False
    return True


def _unread(error: str, content: bytes) -> ExportError:
    """Name the operator where OpenVINO says that it has none of that name."""
    found = re.search(r"No conversion rule found for operations: ([\w.]+)", error)
    if found:
        return cannot("OpenVINO", found[1], "in the float ONNX file", content, ("openvino",))
    return ExportError(
        f"OpenVINO cannot read the float file: {' '.join(error.split())[:300]}", do="convert to another format"
    )


FORMAT = Format(
    name="openvino",
    title="OpenVINO IR",
    suffix=".xml",
    backend="openvino",
    extra="openvino",
    packages=("openvino", "nncf"),
    precisions=("fp32", "bf16", "int8"),
    calibrated=("int8",),
    carries="in the file (rt_info) and in the bundle around it",
    write=write,
    expresses=expresses,
)
