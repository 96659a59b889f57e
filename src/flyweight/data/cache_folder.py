"""Where decoded pixels lie: one folder per store, locks beside it, and the oldest removed when there are too many.

`KEY.use` is held shared by everyone who has a store open, and alone by whoever removes it; `KEY.fill` is held alone by
the process that fills it. Lock files are a few bytes and stay, so that nobody ever waits on one that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flyweight.errors import DataError, OutputError
from flyweight.files import Lease, output_error

DEFAULT_LIMIT_GB = 20.0


def cache_root() -> Path:
    """Return FLYWEIGHT_CACHE, or ~/.cache/flyweight."""
    return Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")


def limit_bytes() -> float:
    """Return how much disk all stores together may take: FLYWEIGHT_CACHE_GB, by default 20.

    Raises:
        DataError: The variable is not a number above zero.
    """
    given = os.environ.get("FLYWEIGHT_CACHE_GB") or DEFAULT_LIMIT_GB
    try:
        limit = float(given) * 1e9
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise DataError(
            f"FLYWEIGHT_CACHE_GB is {given!r}", do="set it to a number of gigabytes, such as 20, or unset it"
        )
    return limit


def lease_folder(folder: Path) -> Lease:
    """Make the store's folder if need be, mark it as just used, and hold it against removal.

    Raises:
        OutputError: The cache cannot be written.
    """
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lease = Lease(folder.with_suffix(".use"), fcntl.LOCK_SH)
        folder.mkdir(exist_ok=True)
        os.utime(folder)
    return lease


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Be the only process that fills this store; wait for another that does. Afterwards make room.

    Raises:
        OutputError: The cache cannot be written, or the disk is full; what was filled stays.
    """
    make_room(folder)
    with explained(folder):
        lease = Lease(folder.with_suffix(".fill"), fcntl.LOCK_EX)
        try:
            yield
        finally:
            lease.close()
    make_room(folder)


def make_room(keep: Path) -> None:
    """Remove the stores used longest ago, until all are within the limit; never `keep` nor one that is open."""
    limit, root = limit_bytes(), keep.parent
    stores = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    ages = {path: _modified(path) for path in stores}
    sizes = {path: _disk_bytes(path) for path in stores}
    for path in sorted(stores, key=lambda path: ages[path]):
        if sum(sizes.values()) <= limit:
            return
        if path != keep and _removed(path):
            sizes.pop(path)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn the system's errors into one that names the cache and how to move it."""
    try:
        yield
    except OSError as error:
        reason = output_error(folder, error).what
        raise OutputError(
            f"the pixel cache: {reason}",
            do="free some space or set FLYWEIGHT_CACHE to a folder on another disk, then run the same command again; "
            "images decoded so far are kept",
        ) from error


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content` at `offset`. Not through a map: there, a full disk would kill the process."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


@contextlib.contextmanager
def sized_file(path: Path, size: int | None = None) -> Iterator[int]:
    """Give the descriptor of a file open for writing, made of zeros and sparse where it is new or of another size."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if size is not None and os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


def _removed(path: Path) -> bool:
    try:
        lease = Lease(path.with_suffix(".use"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or not ours
        return False
    try:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        lease.close()


def _modified(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _disk_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
        for path in folder.iterdir():
            total += path.stat().st_blocks * 512
    return total
