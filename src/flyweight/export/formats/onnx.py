"""ONNX in another opset, for runtimes that are older or stricter than the one it was exported for."""

from __future__ import annotations

from functools import cache
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
    opset, most = original.opset or USUAL, newest()
    if not OLDEST <= opset <= most:
        import onnxruntime

        raise ExportError(
            f"opset {opset} is not offered: ONNX Runtime {onnxruntime.__version__}, which would run the file, loads up "
            f"to {most}",
            do=f"choose one from {OLDEST} to {most}",
        )
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


@cache
def newest() -> int:
    """Return the newest opset that both onnx writes and the ONNX Runtime here loads: it is asked, with one node."""
    import onnx

    for opset in range(onnx.defs.onnx_opset_version(), OLDEST, -1):
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "one", [value], [out])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
        if expresses(model.SerializeToString()):
            return opset
    return OLDEST


def expresses(content: bytes) -> bool:
    """Tell whether ONNX Runtime loads a file."""
    import onnxruntime

    quietly = onnxruntime.SessionOptions()
    quietly.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(content, quietly, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes have no common one but this
        if type(error).__module__.startswith("onnxruntime"):
            return False
        raise
    return True


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
    expresses=expresses,
)
