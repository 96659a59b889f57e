"""Unpack a zipped bundle into a fresh folder, and nothing anywhere else."""

from __future__ import annotations

import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from flyweight.errors import BundleError

MAX_FILES = 10_000
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError)
MAX_BYTES = 2 * 1024**3


def unzip(archive: Path) -> Path:
    """Return a new temporary folder with the archive's files; the caller removes it.

    Raises:
        BundleError: Not a zip, damaged, too large, or with a name that leads outside.
    """
    folder = Path(tempfile.mkdtemp(prefix="flyweight-bundle-"))
    try:
        _extract(archive, folder)
    except BaseException:  # Ctrl-C too leaves nothing behind
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in _checked(opened, archive):
                # Names are checked above; reading stops at the declared size, and the CRC is compared.
                opened.extract(member, folder)
    except DAMAGE as error:
        raise BundleError(
            f"the bundle {str(archive)!r} cannot be unpacked: {error}", do=f"copy {archive.name!r} again"
        ) from error


def bundle_root(folder: Path) -> Path:
    """Return `folder`, or its only sub-folder when the archive holds the bundle as a folder."""
    if (folder / "bundle.json").is_file():
        return folder
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]
    return inner[0] if len(inner) == 1 else folder


def _checked(opened: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    members = opened.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or total > MAX_BYTES:
        raise BundleError(
            f"the bundle {str(archive)!r} would unpack to {len(members)} files of {total} bytes; "
            f"the limits are {MAX_FILES} and {MAX_BYTES}",
            do="check where it comes from; unpack it yourself and give the folder if you trust it",
        )
    for member in members:
        name = PurePosixPath(member.filename)
        link = stat.S_ISLNK(member.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename or link:
            raise BundleError(
                f"the bundle {str(archive)!r} holds the entry {member.filename!r}, which leads outside",
                do="do not use it; ask whoever made it for a bundle written by flyweight export",
            )
    return members
