"""`SHA256SUMS`: written over every file of a bundle, and checked before any of them is believed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from flyweight.errors import BundleError
from flyweight.files import write_text

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)")


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every file of `folder`, in the format of `sha256sum`. Raises OutputError."""
    folder = Path(folder)
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in _names(folder)]
    write_text(folder / SUMS, "".join(lines))


def digest_of(files: Sequence[Path]) -> str:
    """Return what tells a model by its bytes: the SHA-256 of its file; of several, that of theirs in order."""
    found = [_sha256(Path(file)) for file in files]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def check_sums(folder: Path, *, whole: bool = True) -> None:
    """Compare every file of `folder` with SHA256SUMS.

    Args:
        whole: False where the folder may hold further files.

    Raises:
        BundleError: A file is missing, changed (both hashes are named) or not listed, or the list itself is damaged.
    """
    listed = read_sums(folder)
    for name, expected in listed.items():
        if not (folder / name).is_file():
            raise BundleError(f"{name!r} is missing from the bundle {str(folder)!r}", do=_again(folder))
        found = _sha256(folder / name)
        if found != expected:
            raise BundleError(
                f"{name!r} in the bundle {str(folder)!r} has changed: SHA256SUMS says {expected}, the file has {found}",
                do=_again(folder),
            )
    unlisted = sorted(set(_names(folder)) - set(listed)) if whole else []
    if unlisted:
        raise BundleError(
            f"the bundle {str(folder)!r} holds {unlisted[0]!r}, which is not in SHA256SUMS",
            do=f"move {unlisted[0]!r} out of the bundle, or export again",
        )


def read_sums(folder: Path) -> dict[str, str]:
    """Return the listed hash of each file. Raises BundleError."""
    try:
        content = (folder / SUMS).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"no readable SHA256SUMS in the bundle {str(folder)!r}: {error}", do=_again(folder)
        ) from error
    listed: dict[str, str] = {}
    for line in content.splitlines():
        match = LINE.fullmatch(line)
        if match is None or not _inside(match[2]):
            raise BundleError(f"SHA256SUMS of {str(folder)!r} is damaged at the line {line!r}", do=_again(folder))
        listed[match[2]] = match[1]
    return listed


def _names(folder: Path) -> list[str]:
    """Return the relative names of the files, but of hidden ones, which file managers leave behind."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (path for path in paths if not any(part.startswith(".") for part in path.parts))
    return sorted(path.as_posix() for path in kept if path.as_posix() != SUMS)


def _inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in Path(name).parts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _again(folder: Path) -> str:
    return f"copy {folder.name!r} again from where it was exported, or export again"
