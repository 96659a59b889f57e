"""A Python as a device has it: numpy, onnxruntime and Pillow, and none of what Flyweight needs elsewhere."""

from __future__ import annotations

import re
import subprocess
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

NEEDS = ("numpy", "onnxruntime", "pillow")


def bare_python(folder: Path, packages: Iterable[str] = NEEDS) -> Path:
    """Make an environment in `folder` that borrows `packages`, and what they need, from this one; return its Python."""
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in sorted(closure(packages)):
        distribution = metadata.distribution(name)
        for top in {Path(file).parts[0] for file in distribution.files or () if ".." not in Path(file).parts}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin/python"


def closure(packages: Iterable[str]) -> set[str]:
    """Return the packages and everything they require without extras."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            if ";" not in line:
                waiting.append(re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0])
    return found


def call(python: Path, *words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python with nothing of this process's environment but PATH."""
    line = [str(python), *map(str, words)]
    clean = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=clean, check=False)
