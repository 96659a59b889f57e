"""ExecuTorch on the CPU, with XNNPACK. Its Python runtime imports torch, so its memory here is not a device's."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import BundleError, MissingExtraError


class ExecuTorch:
    """A `.pte` file that takes one uint8 image (1, C, S, S) and gives its logits; more are run one by one."""

    name = "executorch"
    how = "XNNPACK, one image at a time"
    only_batch: int | None = None

    def __init__(self, file: Path, threads: int) -> None:
        self._torch, runtime, library = _import_runtime()
        try:
            # Threads belong to the process: the file that was loaded last decides.
            if library._threadpool_get_thread_count() != threads:
                library._unsafe_reset_threadpool(threads)
            self._program = runtime.get().load_program(Path(file).read_bytes())
            self._method = self._program.load_method("forward")
            given = self._method.metadata.input_tensor_meta(0)
        except Exception as error:  # RuntimeError with a number, and pybind11's own
            raise BundleError(
                f"executorch cannot load {str(file)!r}: {error}", do="convert the bundle again"
            ) from error
        sizes = tuple(int(side) for side in given.sizes())
        if len(sizes) != 4 or sizes[0] != 1 or given.nbytes() != int(np.prod(sizes)):
            raise BundleError(
                f"{str(file)!r} takes {given.nbytes()} bytes in the shape {sizes}, not uint8 (1, C, S, S)",
                do="write the file with flyweight convert: normalisation belongs inside the graph",
            )
        self.shape = sizes[1:]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        # Flat in between: the runtime compares strides, and those of a dimension of one channel could be any.
        given = self._torch.from_numpy(np.ascontiguousarray(images).ravel().reshape(images.shape))
        try:
            # The runtime gives the same memory out every time, so each answer is copied.
            rows = [self._method.execute([given[i : i + 1]])[0].numpy().copy() for i in range(len(images))]
        except RuntimeError as error:
            raise BundleError(
                f"executorch cannot run the file: {error}", do="use another variant of the bundle"
            ) from error
        return np.concatenate(rows)


def _import_runtime() -> tuple[Any, Any, Any]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # its parts speak of each other's deprecations
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
    except ImportError as error:
        raise MissingExtraError(
            f"ExecuTorch cannot be imported ({error})", do="pip install 'flyweight[executorch]'"
        ) from error
    finally:
        logging.disable(level)
    return torch, Runtime, portable_lib


def load(file: Path, threads: int) -> ExecuTorch:
    """Return the loaded file. Raises BundleError, MissingExtraError."""
    return ExecuTorch(file, threads)
