"""The engines that run a model file, by name: one small file each, one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np

from flyweight.errors import BundleError


class Backend(Protocol):
    """A loaded model.

    Attributes:
        shape: Of one image it takes: (C, S, S).
        only_batch: The one number of images it takes at a time; None where it takes any.
    """

    name: str
    shape: tuple[int, int, int]
    only_batch: int | None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""


@runtime_checkable
class DeviceClock(Protocol):
    """A backend whose device has a clock of its own."""

    def device_ns(self, images: np.ndarray) -> int:
        """Return how long the device took over images (N, C, S, S) uint8 that lie on it already, in ns."""


Load = Callable[[Path, int], Backend]


DEFAULT = "onnxruntime"
ONNX = ".onnx"


@dataclass(frozen=True)
class Engine:
    """What an engine needs and takes.

    Attributes:
        package: That must be installed.
        reads: Suffixes of the files it runs.
    """

    package: str
    reads: tuple[str, ...]


# A module here has the engine's name, less the dashes.
ENGINES = {
    DEFAULT: Engine("onnxruntime", (ONNX,)),
    "openvino": Engine("openvino", (ONNX, ".xml")),
    "litert": Engine("ai_edge_litert", (".tflite",)),
    "executorch": Engine("executorch", (".pte",)),
    "torch-export": Engine("torch", (".pt2",)),
    "c": Engine("ctypes", (".c",)),  # and a compiler, which says so itself where there is none
}
CUDA = "onnxruntime-cuda"  # the default one's package, built for CUDA
CHECK = "busy-wait"  # to check the clock with


def engines_of(suffix: str = ONNX) -> tuple[str, ...]:
    """Return the engines that run files of a suffix, installed or not, the default one first."""
    return tuple(name for name, engine in ENGINES.items() if suffix in engine.reads)


def installed(suffix: str = ONNX) -> tuple[str, ...]:
    """Return those of them that this environment has."""
    return tuple(name for name in engines_of(suffix) if find_spec(ENGINES[name].package) is not None)


def available(suffix: str = ONNX) -> tuple[str, ...]:
    """Return the same, and for ONNX the default one on CUDA where its package was built for that."""
    import onnxruntime

    cuda = suffix == ONNX and CUDA_PROVIDER in onnxruntime.get_available_providers()
    return installed(suffix) + ((CUDA,) if cuda else ())


CUDA_PROVIDER = "CUDAExecutionProvider"


def import_backend(name: str) -> Load:
    """Return the named engine's `load`, with its package imported.

    Raises:
        BundleError: The backend is unknown.
        MissingExtraError: Its package is not installed.
    """
    if name not in (*ENGINES, CUDA, CHECK):
        known = sorted((*ENGINES, CUDA))
        close = get_close_matches(name, known, 1) or [DEFAULT]
        raise BundleError(f"unknown backend {name!r}; known: {known}", do=f"use {close[0]!r}")
    return cast(Load, import_module(f"{__name__}.{name.replace('-', '')}").load)


def load_backend(name: str, file: Path, threads: int = 1) -> Backend:
    """Return the model file loaded by the named backend.

    Raises:
        BundleError: The backend is unknown or cannot load the file.
        MissingExtraError: The backend's package is not installed.
    """
    return import_backend(name)(file, threads)
