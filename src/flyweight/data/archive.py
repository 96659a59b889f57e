"""Archives, unpacked once into the cache and read safely: nothing lands outside, nothing explodes."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from flyweight.errors import DataError
from flyweight.files import output_error

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
MOST_FILES = 2_000_000
MOST_BYTES = 300 << 30
MOST_RATIO = 200  # unpacked over packed: photos do not shrink, and even flat drawings stay below


def is_archive(path: Path) -> bool:
    """True by the file's suffix."""
    return path.name.lower().endswith(SUFFIXES)


def scratch(name: str) -> Path:
    """Return the folder of the cache for what was unpacked from something of that name."""
    key = hashlib.blake2b(name.encode(), digest_size=10).hexdigest()
    cache = Path(os.environ.get("FLYWEIGHT_CACHE") or Path.home() / ".cache" / "flyweight")
    return cache / "unpacked" / key


def unpack(archives: Sequence[Path], cache: Path | None) -> Path:
    """Return the folder that archives were unpacked into, together; done before, it is not done again.

    Raises:
        DataError: A damaged archive, a path or link that leads outside, or far more data than its size can mean.
        OutputError: The cache cannot be written.
    """
    stamp = "|".join(f"{path.absolute()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in archives)
    target = scratch(stamp) if cache is None else cache / scratch(stamp).name
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpacking-"))
        try:
            for archive in archives:
                _unpack_one(archive, work)
            _settle(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise output_error(target, error) from error
    return target


def _settle(work: Path, target: Path) -> None:
    try:
        os.rename(work, target)
    except OSError:
        if not target.is_dir():  # else another process was faster, with the same content
            raise


def _unpack_one(archive: Path, work: Path) -> None:
    left = min(MOST_BYTES, max(archive.stat().st_size, 1 << 16) * MOST_RATIO)
    for count, (name, declared, file) in enumerate(_members(archive)):
        if declared > left or count >= MOST_FILES:
            raise _bomb(archive)
        target = work / _safe(archive, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            out = target.open("wb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise DataError(f"{archive} holds {name!r} as a file and as a folder", do="fetch it again") from error
        with out:
            for block in _blocks(archive, file):
                left -= len(block)
                if left < 0:  # whatever the header said
                    raise _bomb(archive)
                out.write(block)


def _bomb(archive: Path) -> DataError:
    return DataError(
        f"{archive} unpacks to over {MOST_RATIO} times its size or {MOST_FILES:,} files: a bomb, it seems",
        do="unpack it yourself where you trust it, and give the folder",
    )


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (name, declared bytes, content) of the regular files of an archive."""
    members = _of_zip(archive) if archive.name.lower().endswith(".zip") else _of_tar(archive)
    while True:
        with _damage(archive):
            member = next(members, None)
        if member is None:
            return
        yield member


def _of_zip(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _outside(archive, info.filename)
            if not info.is_dir():
                with zipped.open(info) as file:
                    yield info.filename, info.file_size, file


def _of_tar(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with tarfile.open(archive) as tarred:
        for member in tarred:
            if member.issym() or member.islnk() or member.isdev():
                raise _outside(archive, member.name)
            content = tarred.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, member.size, content


def _blocks(archive: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's content in blocks of at most 1 MiB."""
    while True:
        with _damage(archive):
            block = file.read(1 << 20)
        if not block:
            return
        yield block


@contextlib.contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Turn whatever the decompressors raise on foreign bytes into one error; OSError here is theirs or the disk's."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise DataError(f"{archive} cannot be read: {error}", do="fetch it again") from error
    except (RuntimeError, ValueError, ArithmeticError, LookupError) as error:  # encrypted; nonsense in the headers
        raise DataError(f"{archive} cannot be unpacked: {error}", do="pack the images again, as plain .zip") from error


def _safe(archive: Path, name: str) -> Path:
    steps = PurePosixPath(name.replace("\\", "/"))
    if steps.is_absolute() or ".." in steps.parts or ":" in (steps.parts or ("",))[0] or "\0" in name:
        raise _outside(archive, name)
    return Path(*steps.parts)


def _outside(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive} holds {name!r}, which leads outside the archive or is a link; nothing of it was kept",
        do="do not trust this archive; pack the images again without links",
    )
