"""ONNX in another opset, for runtimes that are older or stricter than the one it was exported for."""

from __future__ import annotations

from pathlib import Path

from flyweight.errors import ExportError
from flyweight.export.formats.format import Format, Original, Written
from flyweight.files import write_bytes

OLDEST, USUAL = 14, 18  # before 14 there was no HardSwish, and onnx has no way back for Sub


def write(original: Original, precision: str, file: Path) -> Written:
    """Write the float file again in `original.opset`. Raises ExportError."""
    import onnx
    from onnx import version_converter

    model = onnx.load_model_from_string(original.variant.file.read_bytes())
    opset, newest = original.opset or USUAL, onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise ExportError(f"opset {opset} is not offered", do=f"choose one from {OLDEST} to {newest}")
    try:
        changed = version_converter.convert_version(model, opset)
        onnx.checker.check_model(changed, full_check=True)
    except Exception as error:  # RuntimeError of its C++ part, and the checker's own
        raise ExportError(
            f"onnx cannot write {original.variant.file.name!r} in opset {opset}: {' '.join(str(error).split())[:300]}",
            do=f"choose an opset nearer to {USUAL}",
        ) from error
    del changed.metadata_props[:]
    changed.metadata_props.extend(model.metadata_props)
    write_bytes(file, changed.SerializeToString(deterministic=True))
    return Written(tool=f"onnx {onnx.__version__} version converter, opset {opset}")


FORMAT = Format(
    name="onnx",
    title="ONNX",
    suffix=".onnx",
    backend="onnxruntime",
    extra="",
    packages=("onnx", "onnxruntime"),
    precisions=("fp32",),
    calibrated=(),
    carries="in the file (metadata_props)",
    write=write,
)
