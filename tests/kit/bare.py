"""A Python as a device has it: numpy, onnxruntime and Pillow, and none of what Flyweight needs elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

NEEDS = ("numpy", "onnxruntime", "pillow")


def bare_python(folder: Path, packages: Iterable[str] = NEEDS, *, seen: Mapping[str, Path] | None = None) -> Path:
    """Make an environment in `folder` that borrows `packages`, and what they need, from this one; return its Python.

    Args:
        seen: Where folders of this machine (`sys.prefix`, `sys.base_prefix`) lie for whoever is to run it.
    """

    def there(path: str | Path) -> str:
        for root, place in (seen or {}).items():
            if Path(path).is_relative_to(root):
                return str(place / Path(path).relative_to(root))
        return str(path)

    venv.create(folder, symlinks=True)
    for link in [path for path in (folder / "bin").iterdir() if path.is_symlink()]:
        target = os.readlink(link)
        link.unlink()
        link.symlink_to(there(target))
    home = there(Path(sys.base_prefix) / "bin")
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    site = next(folder.glob("lib/python*/site-packages"))
    for name in sorted(closure(packages)):
        distribution = metadata.distribution(name)
        for top in {Path(file).parts[0] for file in distribution.files or () if ".." not in Path(file).parts}:
            (site / top).symlink_to(there(str(distribution.locate_file(top))))
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
