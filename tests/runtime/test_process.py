"""A worker ends with the process that began it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

SCRIPT = """
import multiprocessing, os, sys, time
from flyweight.runtime.process import end_with_parent

def work(seconds):
    time.sleep(seconds)  # as imports do: the parent may be gone before this is over
    end_with_parent()
    time.sleep(300)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work, args=(float(sys.argv[1]),))
    process.start()
    print(process.pid, flush=True)
    time.sleep(float(sys.argv[2]))
    os._exit(9)
"""


def life_of_worker(folder: Path, before: float, parent: float) -> float:
    """Return how long a worker lives that watches its parent after some seconds, where that lives some seconds."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), str(before), str(parent)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 9
    pid = int(done.stdout)
    while lives(pid):
        assert time.monotonic() - started < 60, "the worker outlives its parent"
        time.sleep(0.05)
    return time.monotonic() - started


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    assert life_of_worker(tmp_path, 0.0, 2.0) >= 2.0


def test_a_worker_whose_parent_is_gone_before_it_looks_ends_too(tmp_path: Path) -> None:
    assert life_of_worker(tmp_path, 2.0, 0.0) >= 2.0
