"""What decides, beside data and recipe, what a training gives: our code of it, and the libraries it runs on."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

import flyweight

DECIDING = ("data", "models", "train")  # our packages
LIBRARIES = ("torch", "timm", "numpy")


@functools.cache
def code_facts() -> dict[str, str]:
    """Return the hash of each deciding package of ours and the version of each library, by name.

    A search that goes on must have the same: half of its trials by one code and half by another are no search.
    """
    root = Path(flyweight.__file__).parent
    ours = {f"code of flyweight.{name}": hash_of(root / name) for name in DECIDING}
    return ours | {f"version of {name}": metadata.version(name) for name in LIBRARIES}


def hash_of(package: Path) -> str:
    """Return the hash of all Python files of a package, their places in it included."""
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(
            f"{file.relative_to(package).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
        )
    return found.hexdigest()[:16]
