"""LiteRT `.tflite`: written from the ONNX file directly in LiteRT's schema; int8 by ai-edge-quantizer after training.

litert-torch, the usual converter, asks for older packages than the others here and cannot be in one environment with
them; docs/formats.md says why it is not needed.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np

from flyweight import __version__
from flyweight.errors import ExportError
from flyweight.export.formats.format import Format, Original, Written, cannot, quiet
from flyweight.files import write_bytes
from flyweight.runtime.operators import operators

CALIBRATION_BATCH = 16  # ranges are averaged over batches, so that one odd image does not stretch them


def write(original: Original, precision: str, file: Path) -> Written:
    """Write the `.tflite` file. Raises ExportError."""
    from flyweight.export.tflite.convert import CannotWriteError, to_tflite

    try:
        content = to_tflite(original.variant.file.read_bytes(), original.texts, f"flyweight {__version__}")
    except CannotWriteError as error:
        raise cannot("LiteRT", error.operator, error.where, original.variant.file.read_bytes(), ("litert",)) from error
    tool = f"flyweight {__version__} in the schema of ai-edge-litert {metadata.version('ai-edge-litert')}"
    if precision == "int8":
        content = _quantized(content, original)
        number = len(original.calibration)
        tool += f", ai-edge-quantizer {metadata.version('ai-edge-quantizer')} after training, {number} images"
    write_bytes(file, content)
    layers, in_float = layers_of(file)
    return Written(tool, (), layers, in_float if precision == "int8" else ())


def expresses(content: bytes) -> bool:
    """Tell whether LiteRT has an operator for each of a float ONNX file."""
    from flyweight.export.tflite.convert import CannotWriteError, to_tflite

    try:
        to_tflite(content, {}, "")
    except CannotWriteError:
        return False
    return True


def _quantized(content: bytes, original: Original) -> bytes:
    """Return the file with int8 weights (per channel) and activations; uint8 images are still what it takes."""
    last = np.ascontiguousarray(original.calibration.transpose(0, 2, 3, 1))
    whole = len(last) - len(last) % CALIBRATION_BATCH or len(last)
    parts = [{"images": last[i : i + CALIBRATION_BATCH]} for i in range(0, whole, CALIBRATION_BATCH)]
    try:
        with quiet():
            from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

            tool = quantizer.Quantizer(content, recipe.static_wi8_ai8())
            # Logits in float32, as every file gives them: a last DEQUANTIZE.
            last_one, none = qtyping.TFLOperationName.OUTPUT, algorithm_manager.AlgorithmName.NO_QUANTIZE
            tool.update_quantization_recipe(".*", last_one, algorithm_key=none)
            ranges = tool.calibrate({"serving_default": parts}, num_threads=1)
            done = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ExportError(
            f"ai-edge-quantizer cannot quantize this network: {' '.join(str(error).split())[:300]}",
            do="convert to fp32, or to int8 in another format",
        ) from error
    return bytes(done.quantized_model)


def layers_of(file: Path) -> tuple[int, tuple[str, ...]]:
    """Return how many layers a file has, and those that are computed in float, by the tensor they give."""
    heavy = [one for one in operators(file, FORMAT.backend) if one.heavy]
    return len(heavy), tuple(one.name for one in heavy if one.dtype == "fp32")


FORMAT = Format(
    name="litert",
    title="LiteRT",
    suffix=".tflite",
    backend="litert",
    extra="litert",
    packages=("ai_edge_litert", "ai_edge_quantizer"),
    precisions=("fp32", "int8"),
    calibrated=("int8",),
    carries="in the file (metadata) and in the bundle around it",
    write=write,
    expresses=expresses,
)
