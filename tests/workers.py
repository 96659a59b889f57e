"""Processes that a command of Flyweight started: what the kill campaigns aim at."""

from __future__ import annotations

import psutil


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the spawned workers below a process, the resource tracker left out."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
