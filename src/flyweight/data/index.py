"""Content hashes of files, remembered by path, size and modification time: a start reads only what changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import DataError, OutputError
from flyweight.files import write_text

Stamp = tuple[int, int]  # size in bytes, time of modification in ns
Entry = tuple[int, int, str]  # the same, and the hash
Result = TypeVar("Result")
# A file changed twice within one tick of the file system's clock keeps its stamp: so young a stamp is not trusted.
YOUNG_NS = 2_000_000_000
THREADS, PER_TASK = 4, 256


def file_hashes(paths: Sequence[Path]) -> NDArray[np.bytes_]:
    """Return (N,) "S32" blake2b-16 hashes of the bytes of files.

    Raises:
        DataError: A file cannot be read.
    """
    names = [os.path.abspath(path) for path in paths]
    shelves = {top: _index_file(top) for top in set(map(_top, names))}
    known = {name: entry for file in shelves.values() for name, entry in _read(file).items()}
    with ThreadPoolExecutor(THREADS) as pool:
        now = time.time_ns()
        stamps = _each(pool, _stamp, names)
        old = [known.get(name) for name in names]
        missing = [
            n for n, (stamp, entry) in enumerate(zip(stamps, old, strict=True)) if not entry or entry[:2] != stamp
        ]
        digests = ["" if entry is None else entry[2] for entry in old]
        for place, digest in zip(missing, _each(pool, _hash, [names[place] for place in missing]), strict=True):
            digests[place] = digest
    fresh = {names[n]: (*stamps[n], digests[n]) for n in missing if abs(now - stamps[n][1]) > YOUNG_NS}
    _remember(fresh, shelves)
    return np.array(digests, dtype="S32")


def _each(pool: ThreadPoolExecutor, work: Callable[[str], Result], names: Sequence[str]) -> list[Result]:
    """Map over names, many per task: handing out single files would cost more than looking at them."""
    tasks = [names[start : start + PER_TASK] for start in range(0, len(names), PER_TASK)]
    return [result for done in pool.map(lambda some: [work(name) for name in some], tasks) for result in done]


def _stamp(name: str) -> Stamp:
    try:
        status = os.stat(name)
    except OSError as error:
        raise _unreadable(name, error) from error
    return status.st_size, status.st_mtime_ns


def _hash(name: str) -> str:
    try:
        with open(name, "rb", buffering=0) as file:
            return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> DataError:
    reason = (error.strerror or str(error)).lower()
    return DataError(f"{name!r} cannot be read: {reason}", do="check that the file is still there and may be read")


def _top(name: str) -> str:
    """Return the folder whose index holds a file: above its class folder, so that a data set has few of them."""
    return os.path.dirname(os.path.dirname(name))


def _index_file(top: str) -> Path:
    cache = Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")
    return cache / "index" / f"{hashlib.blake2b(top.encode(errors='surrogateescape'), digest_size=8).hexdigest()}.json"


def _read(file: Path) -> dict[str, Entry]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):  # not there yet, or damaged: every file is hashed
        return {}
    rows = content.items() if isinstance(content, dict) else ()
    return {name: (row[0], row[1], row[2]) for name, row in rows if isinstance(row, list) and len(row) == 3}


def _remember(fresh: dict[str, Entry], shelves: dict[str, Path]) -> None:
    """Write each index whole. Two processes may do so at once: the later one wins, and both wrote the truth."""
    by_top: dict[str, dict[str, Entry]] = {}
    for name, entry in fresh.items():
        by_top.setdefault(_top(name), {})[name] = entry
    for top, entries in by_top.items():
        try:
            write_text(shelves[top], json.dumps({**_read(shelves[top]), **entries}))
        except OutputError:  # a read-only home costs time at the next start, nothing else
            return
