"""The graph that ONNX Runtime makes of a file: fused, and without what it need not compute."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from flyweight.errors import BundleError


def optimized(file: Path) -> onnx.ModelProto:
    """Return the graph that ONNX Runtime runs on the processor, before changes of the memory layout.

    Raises:
        BundleError: It cannot load the file.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        # Further optimizations only change the memory layout, and would warn that the result is for this machine.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            onnxruntime.InferenceSession(Path(file).read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors share no public class
            raise BundleError(f"onnxruntime cannot load {str(file)!r}: {error}", do="export the model again") from error
        return onnx.load(options.optimized_model_filepath)
