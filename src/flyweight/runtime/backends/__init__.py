"""The engines that run a model file, by name: one small file each, one line here."""

from __future__ import annotations

from collections.abc import Callable
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
ENGINES = (DEFAULT, "openvino")  # by the package that each needs; a module here has the same name
CUDA = "onnxruntime-cuda"  # the default one's package, built for CUDA
CHECK = "busy-wait"  # to check the clock with


def installed() -> tuple[str, ...]:
    """Return the engines that this environment has, the default one first."""
    return tuple(name for name in ENGINES if find_spec(name) is not None)


def available() -> tuple[str, ...]:
    """Return the same, and the default one on CUDA where its package was built for that."""
    import onnxruntime

    return installed() + ((CUDA,) if CUDA_PROVIDER in onnxruntime.get_available_providers() else ())


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
