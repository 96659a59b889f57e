"""Content hashes of files, remembered by path, size and modification time: a start reads only what changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import DataError, OutputError
from flyweight.files import write_text


def file_hashes(paths: Sequence[Path]) -> NDArray[np.bytes_]:
    """Return (N,) "S32" blake2b-16 hashes of the bytes of files.

    Raises:
        DataError: A file cannot be read.
    """
    folders = sorted({path.parent for path in paths})
    known: dict[str, str] = {}
    for folder in {_index_file(folder) for folder in folders}:
        known.update(_read(folder))
    with ThreadPoolExecutor(4) as pool:
        stamps = list(pool.map(_stamp, paths))
        missing = [place for place, stamp in enumerate(stamps) if stamp not in known]
        fresh = list(pool.map(lambda place: _hash(paths[place]), missing))
    found = {stamps[place]: digest for place, digest in zip(missing, fresh, strict=True)}
    if found:
        _remember(paths, stamps, {**known, **found})
    known.update(found)
    return np.array([known[stamp] for stamp in stamps], dtype="S32")


def _stamp(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(
            f"{str(path)!r} cannot be read: {error.strerror}", do="check that the file is still there"
        ) from error
    return f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"


def _hash(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}", do="check its permissions") from error


def _index_file(folder: Path) -> Path:
    """Return the index file of a folder; one per top folder keeps them few and two data sets apart."""
    cache = Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")
    top = folder.absolute().parent
    return cache / "index" / f"{hashlib.blake2b(str(top).encode(), digest_size=8).hexdigest()}.json"


def _read(path: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # not there yet: every file is hashed
        return {}
    return content


def _remember(paths: Sequence[Path], stamps: Sequence[str], known: dict[str, str]) -> None:
    """Write each index whole. Two processes may do so at once: the later one wins, and both wrote the truth."""
    shelves: dict[Path, dict[str, str]] = {}
    for path, stamp in zip(paths, stamps, strict=True):
        shelves.setdefault(_index_file(path.parent), {})[stamp] = known[stamp]
    for file, content in shelves.items():
        try:
            write_text(file, json.dumps({**_read(file), **content}))
        except OutputError:  # a read-only home costs time at the next start, nothing else
            return
