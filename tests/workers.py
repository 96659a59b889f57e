"""Processes that a command of Flyweight started: what the kill campaigns aim at."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the spawned workers below a process, the resource tracker left out."""
    return [child for child in psutil.Process(pid).children(recursive=True) if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # it has ended meanwhile, or is a zombie
        return False


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Kill a command and all it started, where it still runs: a test that failed leaves nothing behind."""
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def epochs_in(out: Path) -> int:
    """Return how many epochs all runs below a folder have finished so far."""
    return sum(file.read_bytes().count(b"\n") for file in out.rglob("history.jsonl"))


def seconds_of_an_epoch(out: Path) -> float:
    """Return the mean over all runs below a folder so far; half a second before there is one."""
    rows = [json.loads(line) for file in out.rglob("history.jsonl") for line in file.read_text("utf-8").splitlines()]
    return sum(row["train_seconds"] for row in rows) / len(rows) if rows else 0.5


def wait_for_a_moment(process: subprocess.Popen[bytes], out: Path, draw: random.Random) -> None:
    """Wait until a command has finished up to two epochs more, and then for a part of the next.

    A random number of epochs, and not of seconds, so that ten of these end before the study does on any machine.
    """
    wanted, until = epochs_in(out) + draw.randint(0, 2), time.monotonic() + 600
    while epochs_in(out) < wanted:
        assert process.poll() is None, (
            f"it ended with {process.returncode} before it was disturbed as often as it should"
        )
        assert time.monotonic() < until, "no epoch in 600 s"
        time.sleep(0.02)
    time.sleep(draw.random() * seconds_of_an_epoch(out))


def a_worker_of(process: subprocess.Popen[bytes], draw: random.Random) -> psutil.Process:
    """Return one of its workers, as soon as there is one."""
    until = time.monotonic() + 120
    while not (found := workers_of(process.pid)):
        assert time.monotonic() < until, "no worker in 120 s"
        time.sleep(0.05)
    return draw.choice(found)
