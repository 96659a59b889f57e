"""The engines that run a model file, by name: one small file each, one line here."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from flyweight.errors import BundleError


class Backend(Protocol):
    """A loaded model.

    Attributes:
        shape: Of one image it takes: (C, S, S).
    """

    name: str
    shape: tuple[int, int, int]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""


Load = Callable[[Path, int], Backend]


def _lazy(module: str) -> Load:
    """Return `load` of a module here that is imported when a model is first loaded with it."""

    def load(file: Path, threads: int) -> Backend:
        return cast(Load, import_module(f"{__name__}.{module}").load)(file, threads)

    return load


BACKENDS: dict[str, Load] = {
    "onnxruntime": _lazy("onnxruntime"),
    "busy-wait": _lazy("busywait"),  # to check the clock with
}


def load_backend(name: str, file: Path, threads: int = 1) -> Backend:
    """Return the model file loaded by the named backend.

    Raises:
        BundleError: The backend is unknown or cannot load the file.
        MissingExtraError: The backend's package is not installed.
    """
    if name not in BACKENDS:
        close = get_close_matches(name, BACKENDS, 1) or ["onnxruntime"]
        raise BundleError(f"unknown backend {name!r}; known: {sorted(BACKENDS)}", do=f"use {close[0]!r}")
    return BACKENDS[name](file, threads)
