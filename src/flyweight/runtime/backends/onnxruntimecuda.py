"""ONNX Runtime on CUDA, as CUDA graphs where the whole file runs there, with CUDA events for a clock.

Untested: this was written from the documentation on a machine without CUDA. What must hold is checked when a file is
loaded, and its logits are compared with the golden ones wherever it is measured.

Source: ONNX Runtime, "CUDA Execution Provider" (`enable_cuda_graph`, `gpu_graph_id`, `user_compute_stream`); CUDA
Runtime API, "Event Management".
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from flyweight.errors import BundleError, MissingExtraError
from flyweight.runtime.backends import CUDA, CUDA_PROVIDER
from flyweight.runtime.backends.onnxruntime import image_shape, only_batch

CUDART = ("libcudart.so.13", "libcudart.so.12", "cudart64_13.dll", "cudart64_12.dll")


class OnnxRuntimeCuda:
    """An ONNX file with one input `images` and one output `logits`, on the first CUDA device.

    A graph is captured once for each batch size, over buffers on the device that stay where they are. A file with a
    node that CUDA does not have cannot be captured and is run without a graph; `how` says which.
    """

    name = CUDA

    def __init__(self, file: Path, threads: int) -> None:
        if CUDA_PROVIDER not in onnxruntime.get_available_providers():
            raise MissingExtraError(
                "ONNX Runtime was not built for CUDA here", do="pip install onnxruntime-gpu in place of onnxruntime"
            )
        onnxruntime.preload_dlls()
        self._events = Events()
        content = Path(file).read_bytes()
        try:
            self._session = _session(content, threads, self._events.stream, graph=True)
            self.how = "CUDA graph"
        except Exception as error:  # ONNX Runtime's own errors share no public class
            self.how = f"no CUDA graph: {' '.join(str(error).split())}"
            self._session = _load_without_graph(file, content, threads, self._events.stream)
        if self._session.get_providers()[0] != CUDA_PROVIDER:
            raise BundleError(f"CUDA cannot be used for {str(file)!r}: ONNX Runtime fell back to the CPU", do=DRIVER)
        self._image, self._logits = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.shape, self.only_batch = image_shape(self._image, file), only_batch(self._image)
        self._bound: dict[int, tuple[Any, Any, Any, Any]] = {}

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8; copying there and back is part of it."""
        binding, options, given, found = self._buffers(len(images))
        given.update_inplace(images)
        self._session.run_with_iobinding(binding, options)
        logits: np.ndarray = found.numpy()
        return logits

    def device_ns(self, images: np.ndarray) -> int:
        """Return the time between two events around the same work, with the images on the device already, in ns."""
        binding, options, given, _ = self._buffers(len(images))
        given.update_inplace(images)
        return self._events.around(lambda: self._session.run_with_iobinding(binding, options))

    def _buffers(self, batch: int) -> tuple[Any, Any, Any, Any]:
        if batch not in self._bound:
            given = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((batch, *self.shape), np.uint8), "cuda", 0)
            classes = int(self._logits.shape[1])
            found = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((batch, classes), np.float32), "cuda", 0)
            binding, options = self._session.io_binding(), onnxruntime.RunOptions()
            binding.bind_ortvalue_input(self._image.name, given)
            binding.bind_ortvalue_output(self._logits.name, found)
            options.add_run_config_entry("gpu_graph_id", str(len(self._bound) + 1))
            self._bound[batch] = (binding, options, given, found)
        return self._bound[batch]


class Events:
    """A stream of the CUDA runtime and two events on it."""

    def __init__(self) -> None:
        self._cuda = _cuda_runtime()
        self._stream, self._start, self._end = (ctypes.c_void_p() for _ in range(3))
        self._do("cudaStreamCreate", ctypes.byref(self._stream))
        for event in (self._start, self._end):
            self._do("cudaEventCreate", ctypes.byref(event))

    @property
    def stream(self) -> str:
        """The address of the stream, as ONNX Runtime takes it."""
        return str(self._stream.value)

    def around(self, work: Any) -> int:
        """Return the time that the stream took over `work()`, in ns."""
        self._do("cudaEventRecord", self._start, self._stream)
        work()
        self._do("cudaEventRecord", self._end, self._stream)
        self._do("cudaEventSynchronize", self._end)
        elapsed_ms = ctypes.c_float()
        self._do("cudaEventElapsedTime", ctypes.byref(elapsed_ms), self._start, self._end)
        return round(elapsed_ms.value * 1e6)

    def _do(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status != 0:
            raise BundleError(f"CUDA cannot be used: {name} gave the error {status}", do=DRIVER)


DRIVER = "check the driver with nvidia-smi, or measure on the backend onnxruntime"


def _cuda_runtime() -> ctypes.CDLL:
    for name in CUDART:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise BundleError(f"CUDA cannot be used: none of {', '.join(CUDART)} can be loaded", do=DRIVER)


def _load_without_graph(file: Path, content: bytes, threads: int, stream: str) -> onnxruntime.InferenceSession:
    try:
        return _session(content, threads, stream, graph=False)
    except Exception as error:  # as above
        raise BundleError(f"{CUDA} cannot load {str(file)!r}: {error}", do=DRIVER) from error


def _session(content: bytes, threads: int, stream: str, *, graph: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    how = {"user_compute_stream": stream, "enable_cuda_graph": str(int(graph))}
    providers = [(CUDA_PROVIDER, how)] if graph else [(CUDA_PROVIDER, how), "CPUExecutionProvider"]
    if graph:  # a node on the CPU cannot be captured: refused here, not found out in the middle of a run
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return onnxruntime.InferenceSession(content, options, providers=providers)


def load(file: Path, threads: int) -> OnnxRuntimeCuda:
    """Return the loaded file. Raises BundleError, MissingExtraError."""
    return OnnxRuntimeCuda(file, threads)
