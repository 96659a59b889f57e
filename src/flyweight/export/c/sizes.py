"""Flash and RAM of compiled sources, as `size` reports them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Os")
TARGETS = {
    "Cortex-M4": (
        "arm-none-eabi-",
        ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    ),
    "this machine": ("", ("-fno-pie",)),  # else constants that hold addresses count as RAM
}


@dataclass(frozen=True)
class Size:
    """Of one object file, without the C library.

    Attributes:
        target: What it was compiled for.
        flash: Code, constants and the initial values of variables.
        ram: Static variables; the stack is not counted.
        compiler: Its version line.
    """

    target: str
    flash: int
    ram: int
    compiler: str


def sizes_of(source: Path) -> list[Size]:
    """Return the sizes of a C file for every target whose compiler is installed here; none where there is none.

    Raises:
        RuntimeError: The file does not compile without a warning.
    """
    found = []
    for target, (prefix, options) in TARGETS.items():
        compiler, size = (shutil.which(f"{prefix}{tool}") for tool in ("gcc", "size"))
        if compiler is None or size is None:
            continue
        with tempfile.TemporaryDirectory(prefix="flyweight-size-") as folder:
            made = str(Path(folder) / "model.o")
            _run([compiler, *STRICT, *options, "-c", str(source), "-o", made])
            text, data, bss = map(int, _run([size, made]).splitlines()[1].split()[:3])
        version = _run([compiler, "--version"]).splitlines()[0]
        found.append(Size(target, text + data, data + bss, version))
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout
