"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from flyweight.errors import BundleError


class OnnxRuntime:
    """An ONNX file with one input `images` and one output `logits`."""

    name = "onnxruntime"

    def __init__(self, file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            # From bytes: a path would let an ONNX file read other files as its external weights.
            content = Path(file).read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors share no public class
            raise BundleError(f"onnxruntime cannot load {str(file)!r}: {error}", do="export the model again") from error
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self.shape = image_shape(self._session.get_inputs()[0], file)
        self.only_batch = only_batch(self._session.get_inputs()[0])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        try:
            logits: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # as above
            raise BundleError(
                f"onnxruntime cannot run the file on {len(images)} image(s): {error}", do="use fewer images at a time"
            ) from error
        return logits


def only_batch(given: onnxruntime.NodeArg) -> int | None:
    """Return the one batch size an input takes; None where it takes any."""
    return given.shape[0] if isinstance(given.shape[0], int) else None


def image_shape(given: onnxruntime.NodeArg, file: Path) -> tuple[int, int, int]:
    """Return (C, S, S) of an input of uint8 images. Raises BundleError where it takes something else."""
    sides = given.shape[1:]
    if given.type != "tensor(uint8)" or len(sides) != 3 or not all(isinstance(side, int) for side in sides):
        raise BundleError(
            f"{str(file)!r} takes {given.type}{given.shape}, not tensor(uint8)['N', C, S, S]",
            do="export the model with flyweight export: normalisation belongs inside the graph",
        )
    channels, height, width = sides
    return (channels, height, width)


def load(file: Path, threads: int) -> OnnxRuntime:
    """Return the loaded file. Raises BundleError."""
    return OnnxRuntime(file, threads)
