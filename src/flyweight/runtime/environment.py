"""The conditions that travel with every number: machine, system, versions, date, command."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "flyweight", "numpy", "pillow", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf",
    "ai-edge-litert", "executorch", "torch", "torchvision", "torchao", "timm", "onnxscript", "scipy", "scikit-learn",
    "pydantic",
)  # fmt: skip


CPU = "cpu"


def is_cpu(device: str) -> bool:
    """Return True where a device, as torch names it, is the processor."""
    return device.split(":")[0] == CPU


def environment() -> dict[str, Any]:
    """Return what a number depends on. Nothing is imported for it, and no host or user name is in it."""
    return {
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "load_average": load_average(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(),
    }


def versions() -> dict[str, str]:
    """Return the version of each of `PACKAGES` that is installed, by their metadata."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """Return the command line of this process; the program by its last name only."""
    return shlex.join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])


def cpu_name() -> str:
    """Return the processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return named.get("model name") or named.get("Model") or named.get("Hardware") or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):  # no cgroup v2
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def load_average() -> float | None:
    """Return how many processes wanted a core in the last minute, or None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def memory_bytes() -> int | None:
    """Return the physical memory in bytes, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # Windows
        return None
