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
    """A loaded model."""

    name: str

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""


# Name to the module with `load(file, threads) -> Backend`; imported when it is asked for.
BACKENDS: dict[str, str] = {
    "onnxruntime": "flyweight.runtime.backends.onnxruntime",
}


def load_backend(name: str, file: Path, threads: int = 1) -> Backend:
    """Return the model file loaded by the named backend.

    Raises:
        BundleError: The backend is unknown or cannot load the file.
        MissingExtraError: The backend's package is not installed.
    """
    if name not in BACKENDS:
        close = get_close_matches(name, BACKENDS, 1) or sorted(BACKENDS)
        raise BundleError(f"unknown backend {name!r}; known: {sorted(BACKENDS)}", do=f"use --backend {close[0]}")
    load = cast(Callable[[Path, int], Backend], import_module(BACKENDS[name]).load)
    return load(file, threads)
