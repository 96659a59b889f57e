"""A model in C, compiled here by the machine's own compiler into a shared library that is kept in the cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from flyweight.errors import BundleError, MissingExtraError
from flyweight.files import replace_file

COMPILERS = ("gcc", "cc", "clang")
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC")
NAME = "flyweight"  # what the symbols of a bundle's sources begin with


class C:
    """C sources that take one image at a time, in one thread: their activations are static."""

    name = "c"
    only_batch: int | None = None

    def __init__(self, file: Path, threads: int) -> None:
        self._library = ctypes.CDLL(str(_compiled(Path(file))))
        try:
            shape = (ctypes.c_int32 * 3).in_dll(self._library, f"{NAME}_shape")
            self._run = self._library[f"{NAME}_run"]
        except (ValueError, AttributeError) as error:
            raise BundleError(
                f"{str(file)!r} is no model that Flyweight wrote: {error}", do="convert it again"
            ) from error
        side, channels, self._classes = shape
        self.shape = (channels, side, side)
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._run.restype = None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        if images.shape[1:] != self.shape or images.dtype != np.uint8:
            raise BundleError(
                f"the C sources take uint8 (N, {', '.join(map(str, self.shape))}), not {images.dtype}{images.shape}",
                do="give the pixels that preprocess.load makes",
            )
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        logits = np.empty((len(images), self._classes), np.float32)
        with _ONE_AT_A_TIME:  # a library is loaded once a process, and its memory is static
            for given, found in zip(pixels, logits, strict=True):
                self._run(given.ctypes.data, found.ctypes.data)
        return logits


_ONE_AT_A_TIME = threading.Lock()


def compiler() -> str:
    """Return the C compiler of this machine: CC, or one of the usual names. Raises MissingExtraError."""
    asked = os.environ.get("CC")
    for name in (asked,) if asked else COMPILERS:
        if name and (found := shutil.which(name)):
            return found
    raise MissingExtraError(
        f"a C compiler is needed to run C sources here, and there is no {asked or ', '.join(COMPILERS)}",
        do="install gcc (Debian: apt install gcc libc6-dev; macOS: xcode-select --install), or set CC",
    )


def _compiled(file: Path) -> Path:
    """Return the shared library of a C file and the header beside it, compiled if the cache has none."""
    command = [compiler(), *FLAGS]
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {str(file)!r}: {error.strerror}", do="convert the bundle again") from error
    header = file.with_suffix(".h")
    beside = header.read_bytes() if header.is_file() else b""
    key = hashlib.blake2b(b"\0".join([" ".join(command).encode(), content, beside]), digest_size=12).hexdigest()
    library = _cache() / f"{key}{'.dylib' if sys.platform == 'darwin' else '.so'}"
    if not library.is_file():
        with tempfile.TemporaryDirectory(prefix="flyweight-c-") as folder:
            made = Path(folder) / library.name
            done = subprocess.run(
                [*command, str(file), "-o", str(made), "-lm"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise BundleError(
                    f"c cannot load {str(file)!r}, which {command[0]} cannot compile: "
                    f"{next(iter(done.stderr.strip().splitlines()), 'no reason given')[:300]}",
                    do="convert the bundle again",
                )
            with replace_file(library) as target:
                target.write(made.read_bytes())
    return library


def _cache() -> Path:
    root = Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")
    return root / "c"


def load(file: Path, threads: int) -> C:
    """Return the loaded file. Raises BundleError, MissingExtraError."""
    return C(file, threads)
