"""Files that are either whole or absent (write to a temporary name, fsync, rename), and locks that are files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from flyweight.errors import OutputError


@contextlib.contextmanager
def replace_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes the name `path` only once it is complete and on the disk.

    Raises:
        OutputError: The folder cannot be written or the disk is full; what stood at `path` is untouched.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Raises OutputError."""
    with replace_file(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all. Raises OutputError."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON (no NaN) to `path`, whole or not at all. Raises OutputError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write an archive, whole or not at all; the same members give the same bytes. Raises OutputError."""
    with replace_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)


def output_error(path: Path, error: OSError) -> OutputError:
    """Say why `path` cannot be written and what to do about it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "the disk is full" if full else (error.strerror or str(error)).lower()
    advice = (
        "free some space and run the same command again; finished files are intact"
        if full
        else ("choose a folder you may write to")
    )
    return OutputError(f"cannot write {str(path)!r}: {reason}", do=advice)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and the rename alone is what there is
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lease:
    """A lock held until this value is let go (or its process ends)."""

    def __init__(self, path: Path, operation: int) -> None:
        import fcntl  # not on Windows, where a device may run the rest of this module

        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, operation)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go; once is enough, more do no harm."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()
