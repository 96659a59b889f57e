"""What decides, beside data and recipe, what a training gives: our code of it, and the libraries it runs on."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

import flyweight

# Ours, that decide any training; the two files of `runtime` make the pixels.
DECIDING = ("data", "models", "train", "runtime.preprocess", "runtime.resize")
LIBRARIES = ("torch", "timm", "numpy", "pillow")


@functools.cache
def code_facts(parts: tuple[str, ...] = (), libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the hash of each deciding part of ours and the version of each library, by name.

    What goes on must have the same: half of its trials by one code and half by another are no search and no study.

    Args:
        parts: More packages or modules of ours, as `tune` or `studies.trial`, that decide in this case.
        libraries: More libraries, by the names that they are installed by.
    """
    root = Path(flyweight.__file__).parent
    ours = {f"code of flyweight.{name}": hash_of(_place(root, name)) for name in (*DECIDING, *parts)}
    return ours | {f"version of {name}": metadata.version(name) for name in (*LIBRARIES, *libraries)}


def _place(root: Path, name: str) -> Path:
    place = root.joinpath(*name.split("."))
    return place if place.is_dir() else place.with_suffix(".py")


def hash_of(place: Path) -> str:
    """Return the hash of a file, or of all Python files of a package, their places in it included."""
    found = hashlib.sha256()
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        found.update(
            f"{file.relative_to(place).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
        )
    return found.hexdigest()[:16]
