"""`flyweight doctor`: what this machine has, what is missing, and the line that installs it. Imports no torch."""

from __future__ import annotations

import json
import os
import platform
import re
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

# Instructions that decide how fast a small network runs, as Linux names them on x86 and on ARM.
FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16",
         "amx_int8", "neon", "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve")  # fmt: skip
EXTRAS = (
    "train", "report", "tune", "compress", "serve", "openvino", "litert", "executorch", "hf", "dashboard", "postgresql",
    "ray", "dev",
)  # fmt: skip
SECRET = re.compile(r"token|key|secret|password", re.IGNORECASE)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show what this machine has and what is missing."""
    found = examine()
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(found):
        table.add_row(name, text)
    Console(markup=False, highlight=False).print(table)


def examine() -> dict[str, Any]:
    """Return the environment as plain values; no package but onnxruntime is imported for it."""
    from flyweight.runtime import environment

    return {
        "flyweight": metadata.version("flyweight"),
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": environment.cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": environment.usable_cores(),
        "memory_bytes": environment.memory_bytes(),
        "versions": environment.versions(),
        "extras": {extra: missing(extra) for extra in EXTRAS},
        "onnxruntime_providers": providers(),
        "folders": {name: {"path": str(path), "bytes": folder_bytes(path)} for name, path in folders().items()},
        "variables": {name: "***" if SECRET.search(name) else value for name, value in sorted(os.environ.items())
                      if name.startswith("FLYWEIGHT_")},
    }  # fmt: skip


def cpu_flags() -> list[str]:
    """Return those of `FLAGS` the processor has; empty where the system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:  # not Linux
        return []
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    has = set(lines[0].split()) if lines else set()
    return [flag for flag in FLAGS if flag in has]


def missing(extra: str) -> list[str]:
    """Return the packages that `extra` asks for and that are not installed; other extras it names are not followed."""
    asked = [line for line in metadata.requires("flyweight") or [] if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in asked]
    return [name for name in names if name != "flyweight" and not _installed(name)]


def providers() -> list[str]:
    """Return the execution providers of the installed ONNX Runtime; empty where there is none."""
    if util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def folders() -> dict[str, Path]:
    """Return the folders Flyweight writes to of its own accord."""
    from flyweight.data.cache import cache_root
    from flyweight.measure.device import home

    return {"cache": cache_root(), "home": home()}


def folder_bytes(path: Path) -> int:
    """Return the bytes of all files below `path`; 0 where there is none. What vanishes meanwhile is not counted."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory = found["memory_bytes"]
    lines = [
        ("flyweight", found["flyweight"]),
        ("python", found["python"]),
        ("system", f"{found['os']} ({found['machine']})"),
        ("processor", f"{found['cpu']}, {found['cores']} usable cores"),
        ("instructions", ", ".join(found["cpu_flags"]) or "not listed by this system"),
        ("memory", "not known" if memory is None else _size(memory)),
        ("packages", ", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        ("onnxruntime", ", ".join(found["onnxruntime_providers"]) or "not installed: pip install flyweight"),
    ]
    for extra, names in found["extras"].items():
        absent = f"missing {', '.join(names)}: pip install 'flyweight[{extra}]'"
        lines.append((f"extra {extra}", absent if names else "installed"))
    for name, folder in found["folders"].items():
        lines.append((name, f"{folder['path']} ({_size(folder['bytes'])})"))
    lines += list(found["variables"].items()) or [("variables", "no FLYWEIGHT_* variable is set")]
    return lines


def _size(count: int) -> str:
    steps = [("GB", 10**9), ("MB", 10**6), ("KB", 10**3)]
    unit, factor = next((step for step in steps if count >= step[1]), ("B", 1))
    return f"{count / factor:.3g} {unit}"
