"""OpenVINO on the CPU, from an ONNX file or OpenVINO's own (.xml, with the weights in .bin beside it).

Its package reports every import to its makers over the network and writes an identifier into the home folder; here that
part is kept from loading, for which the package has a stub of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from flyweight.errors import BundleError, MissingExtraError

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "not installed", to import statements
try:
    import openvino
except ImportError as error:
    raise MissingExtraError(f"OpenVINO cannot be imported ({error})", do="pip install 'flyweight[openvino]'") from error

INFO, PRECISION = "flyweight", "precision"  # where an .xml says what it is to be computed in


class OpenVino:
    """A file with one input of uint8 images and one output of logits, computed in what the file says.

    It is compiled for one image at a time, so that shapes are worked out once and not with every image; for other
    batches once more, when the first of them comes.
    """

    name = "openvino"

    def __init__(self, file: Path, threads: int) -> None:
        self._file, self._threads = file, threads
        one = compiled(file, threads, batch=1)
        self.how = f"floats computed in {one.get_property('INFERENCE_PRECISION_HINT').get_type_name()}"
        self._one, self._any = one.create_infer_request(), None
        self.shape = _image_shape(one.inputs[0], file)
        first = read(openvino.Core(), file).inputs[0].get_partial_shape()[0]
        self.only_batch = first.get_length() if first.is_static else None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        request = self._one
        if len(images) != 1 and self.only_batch is None:
            self._any = self._any or compiled(self._file, self._threads).create_infer_request()
            request = self._any
        try:
            # As `request.infer([images])[0]`, without its copies and its dictionary: as long as a tiny network takes.
            given = openvino.Tensor(np.ascontiguousarray(images), shared_memory=True)
            request.set_input_tensor(given)
            request.infer()
            logits: np.ndarray = request.get_output_tensor().data.copy()
        except RuntimeError as error:
            raise BundleError(f"openvino cannot run the file: {error}", do="use the backend 'onnxruntime'") from error
        return logits


def compiled(file: Path, threads: int, batch: int | None = None) -> openvino.CompiledModel:
    """Return the file compiled for the CPU.

    Args:
        batch: For batches of this size alone; None: for those that the file takes.

    Raises:
        BundleError: It cannot be read or compiled.
    """
    how = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        core = openvino.Core()
        model = read(core, file)
        given = model.inputs[0].get_partial_shape()
        if batch is not None and given.rank.is_static and len(given) and given[0].is_dynamic:
            model.reshape([batch, *list(given)[1:]])
        # Without a hint float layers run in bfloat16 where the processor can, whether the file says so or not.
        return core.compile_model(model, "CPU", {**how, "INFERENCE_PRECISION_HINT": _precision(model)})
    except Exception as error:  # its errors are RuntimeError and ValueError of several kinds
        raise BundleError(f"openvino cannot load {str(file)!r}: {error}", do="export the model again") from error


def read(core: openvino.Core, file: Path) -> openvino.Model:
    """Return the model of a file. From bytes: a path would let an ONNX file read others as its external weights."""
    content = Path(file).read_bytes()
    if Path(file).suffix == ".xml":
        return core.read_model(content, Path(file).with_suffix(".bin").read_bytes())
    return core.read_model(content)


def _precision(model: openvino.Model) -> str:
    """Return what floats are computed in: f32, unless an .xml of ours says bf16."""
    path = [INFO, PRECISION]
    return "bf16" if model.has_rt_info(path) and model.get_rt_info(path).astype(str) == "bf16" else "f32"


def _image_shape(given: openvino.ConstOutput, file: Path) -> tuple[int, int, int]:
    shape, kind = given.get_partial_shape(), given.element_type.get_type_name()
    static = shape.rank.is_static and len(shape) == 4 and all(side.is_static for side in list(shape)[1:])
    if kind != "u8" or not static:
        raise BundleError(
            f"{str(file)!r} takes {kind}{shape}, not u8[?, C, S, S]",
            do="export the model with flyweight export: normalisation belongs inside the graph",
        )
    channels, height, width = (side.get_length() for side in list(shape)[1:])
    return (channels, height, width)


def load(file: Path, threads: int) -> OpenVino:
    """Return the loaded file. Raises BundleError."""
    return OpenVino(file, threads)
