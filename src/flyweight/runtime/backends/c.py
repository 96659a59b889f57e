"""A model in C, compiled here by the machine's own compiler into a shared library that is kept in the cache.

C is a program: what a stranger put into a bundle would run with all rights of whoever loads it, and the hashes of a
bundle prove no author. So `load` compiles nothing. It takes from the cache what `build` made of the very same text, and
`build` is called by who knows where the text comes from: `export/c/check.py` writes it again from the ONNX file.
"""

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
CHECKED = "checked"  # part of the key: libraries of a time when any text was compiled are not loaded
NAME = "flyweight"  # what the symbols of a bundle's sources begin with


class C:
    """C sources that take one image at a time, in one thread: their activations are static."""

    name = "c"
    only_batch: int | None = None

    def __init__(self, file: Path, threads: int) -> None:
        self._library = ctypes.CDLL(str(_built(Path(file))))
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


def build(code: bytes, header: bytes, stem: str) -> Path:
    """Compile the text of STEM.c and STEM.h into the cache, unless it is there, and return the shared library.

    Only for a text that Flyweight has just written itself, or that the user chose to run as a program.

    Raises:
        BundleError: It cannot be compiled.
        MissingExtraError: There is no compiler.
    """
    library = _library(code, header)
    if not library.is_file():
        command = [compiler(), *FLAGS]
        with tempfile.TemporaryDirectory(prefix="flyweight-c-") as folder:
            file, made = Path(folder) / f"{stem}.c", Path(folder) / library.name
            file.write_bytes(code)
            file.with_suffix(".h").write_bytes(header)
            done = subprocess.run(
                [*command, str(file), "-o", str(made), "-lm"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise BundleError(
                    f"c cannot load '{stem}.c', which {command[0]} cannot compile: "
                    f"{next(iter(done.stderr.strip().splitlines()), 'no reason given')[:300]}",
                    do="convert the bundle again",
                )
            with replace_file(library) as target:
                target.write(made.read_bytes())
    return library


def build_file(file: Path) -> Path:
    """Do the same with a file and the header beside it. Raises BundleError, MissingExtraError."""
    return build(*texts_of(file), Path(file).stem)


def texts_of(file: Path) -> tuple[bytes, bytes]:
    """Return the bytes of a C file and of the header beside it (none: empty). Raises BundleError."""
    try:
        header = Path(file).with_suffix(".h")
        return Path(file).read_bytes(), header.read_bytes() if header.is_file() else b""
    except OSError as error:
        raise BundleError(f"cannot read {str(file)!r}: {error.strerror}", do="convert the bundle again") from error


def _built(file: Path) -> Path:
    """Return the shared library of a C file that `build` has made here. Raises BundleError where it has not."""
    library = _library(*texts_of(file))
    if not library.is_file():
        raise BundleError(
            f"c cannot load {str(file)!r}: it is a program, and nothing on this machine has shown that it is what "
            "Flyweight wrote; it is not compiled",
            do="flyweight verify BUNDLE --variant NAME: it writes the text again from the bundle's ONNX file, and "
            "compiles it only if it is equal",
            more="docs/microcontrollers.md#who-wrote-it",
        )
    return library


def _library(code: bytes, header: bytes) -> Path:
    """Return where the shared library of a text is, or will be. Raises MissingExtraError: there is no compiler."""
    made_by = " ".join([CHECKED, compiler(), *FLAGS]).encode()
    key = hashlib.blake2b(b"\0".join([made_by, code, header]), digest_size=12).hexdigest()
    return _cache() / f"{key}{'.dylib' if sys.platform == 'darwin' else '.so'}"


def _cache() -> Path:
    root = Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")
    return root / "c"


def load(file: Path, threads: int) -> C:
    """Return the loaded file, which `build` has compiled before. Raises BundleError, MissingExtraError."""
    return C(file, threads)
