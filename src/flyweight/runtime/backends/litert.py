"""LiteRT (TensorFlow Lite) on the CPU, with XNNPACK."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flyweight.errors import BundleError, MissingExtraError

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError as error:
    raise MissingExtraError(f"LiteRT cannot be imported ({error})", do="pip install 'flyweight[litert]'") from error


class LiteRt:
    """A `.tflite` file with one input of uint8 images (N, S, S, C) and one output of logits.

    Images come as (N, C, S, S); those that lie in memory as (N, S, S, C), as the data path keeps them, are not copied.
    """

    name = "litert"
    how = "XNNPACK"
    only_batch: int | None = None

    def __init__(self, file: Path, threads: int) -> None:
        try:
            self._interpreter = Interpreter(model_content=Path(file).read_bytes(), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"litert cannot load {str(file)!r}: {error}", do="convert the bundle again") from error
        given, found = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._input, self._output = given["index"], found["index"]
        self.shape, self._batch = _image_shape(given, file), 1
        if found["dtype"] != np.float32:
            raise BundleError(
                f"{str(file)!r} gives {np.dtype(found['dtype'])}, not logits in float32",
                do="write the file with flyweight convert: it ends in a DEQUANTIZE",
            )

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        last = images.transpose(0, 2, 3, 1)
        try:
            if len(last) != self._batch:
                self._interpreter.resize_tensor_input(self._input, last.shape)
                self._interpreter.allocate_tensors()
                self._batch = len(last)
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(last))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"litert cannot run the file on {len(images)} image(s): {error}", do="use fewer images at a time"
            ) from error
        logits: np.ndarray = self._interpreter.get_tensor(self._output)
        return logits


def _image_shape(given: dict[str, object], file: Path) -> tuple[int, int, int]:
    shape, kind = [int(side) for side in np.asarray(given["shape"])], np.dtype(given["dtype"])  # type: ignore[call-overload]
    if kind != np.uint8 or len(shape) != 4 or shape[1] != shape[2]:
        raise BundleError(
            f"{str(file)!r} takes {kind}{shape}, not uint8[N, S, S, C]",
            do="write the file with flyweight convert: normalisation belongs inside the graph",
        )
    return (shape[3], shape[1], shape[2])


def load(file: Path, threads: int) -> LiteRt:
    """Return the loaded file. Raises BundleError."""
    return LiteRt(file, threads)
