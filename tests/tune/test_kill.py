"""SIGKILL of a search and of its workers, a locked database, a full disk: nothing lost, doubled or changed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.workers import a_worker_of, end, wait_for_a_moment

from flyweight.data.sources import load_data
from flyweight.train.recipe import load_recipe
from flyweight.train.run import train_and_wait

KILLS = 10
SPACE = {
    "params": [
        {"key": "optim.lr", "low": 0.003, "high": 1.0, "log": True, "likely": 0.1},
        {"key": "label_smoothing", "low": 0.0, "high": 0.3},
        {"key": "batch_size", "choices": [32, 64]},
    ],
    "fixed": {"model.name": "tiny_cnn_8"},
}
SETTINGS = ("epochs=9", "data.image_size=16", "data.train_fraction=0.5")


def command(out: Path, jobs: int) -> list[str]:
    (out.parent / "space.yaml").write_text(yaml.safe_dump(SPACE))
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ["tune", "sample", "--recipe", "smoke", *sets, "--space", str(out.parent / "space.yaml"), "--trials", "12"]
    return [sys.executable, "-m", "flyweight", *words, "--jobs", str(jobs), "--out", str(out), "--json"]


def outcome(out: Path) -> list[dict[str, Any]]:
    """Return the trials of the report, less their clocks and deaths."""
    trials: list[dict[str, Any]] = json.loads((out / "report.json").read_text())["trials"]
    for trial in trials:
        del trial["deaths"], trial["died"]
        for result in trial["results"]:
            del result["seconds"], result["own_seconds"], result["done"]
    return trials


def campaign(jobs: int, draw: random.Random) -> list[str]:
    """Return what happens to the search, in turn: ten kills, half of them of single workers where there are several.

    Between them the database is locked once, and the disk is full once.
    """
    kills = ["all"] * KILLS if jobs == 1 else ["all", "worker"] * (KILLS // 2)
    draw.shuffle(kills)
    return [*kills[:4], "locked", *kills[4:7], "full", *kills[7:]]


def disturb(out: Path, jobs: int, draw: random.Random) -> None:
    """Run the search, start it again each time it was ended, and at last to its end."""
    said = out.parent.with_name(f"{out.parent.name}-said")
    process: subprocess.Popen[bytes] | None = None
    try:
        for event in campaign(jobs, draw):
            if process is None:
                with said.open("wb") as file:
                    process = subprocess.Popen(command(out, jobs), stdout=file, stderr=file, start_new_session=True)
            wait_for_a_moment(process, out, draw)
            assert process.poll() is None, said.read_text()
            process = strike(event, process, out, said, draw)
        if process is not None:
            assert process.wait(1200) == 0, said.read_text()
    finally:
        end(process)
    subprocess.run(command(out, jobs), check=True, capture_output=True)


def strike(
    event: str, process: subprocess.Popen[bytes], out: Path, said: Path, draw: random.Random
) -> subprocess.Popen[bytes] | None:
    """Let it happen; return the process where it goes on."""
    if event == "worker":  # it is replaced while the search goes on
        a_worker_of(process, draw).kill()
        return process
    if event == "locked":
        wait_for(out / "study.db")
        lock(out / "study.db", 3.0)
        return process
    if event == "full":
        fill(out.parent / "ballast")
        assert process.wait(300) == 1, said.read_text()
        assert "Traceback" not in said.read_text()
        assert "disk" in said.read_text()
        (out.parent / "ballast").unlink()
    end(process)
    return None


def wait_for(file: Path) -> None:
    until = time.monotonic() + 60
    while not file.is_file():
        assert time.monotonic() < until, f"no {file}"
        time.sleep(0.05)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file system of its own, 200 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        assert os.environ.get("CI") != "true", "CI runs as a user who can mount a small file system"
        pytest.skip("this user cannot mount a small file system, which is to run full")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def lock(database: Path, seconds: float) -> None:
    holder = sqlite3.connect(database, timeout=30, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    holder.execute("COMMIT")
    holder.close()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_search_with_one_worker_killed_ten_times_ends_with_the_trials_of_an_undisturbed_one(
    small_disk: Path, tmp_path: Path
) -> None:
    subprocess.run(command(tmp_path / "whole", 1), check=True, capture_output=True)
    disturb(small_disk / "cut", 1, random.Random(0))
    assert outcome(small_disk / "cut") == outcome(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_search_with_two_workers_killed_ten_times_loses_and_doubles_nothing_and_every_accuracy_is_its_recipes(
    small_disk: Path, tmp_path: Path
) -> None:
    out = small_disk / "cut"
    disturb(out, 2, random.Random(1))
    trials = outcome(out)
    assert [trial["number"] for trial in trials] == list(range(12))
    assert len({json.dumps(trial["values"], sort_keys=True) for trial in trials}) == 12
    assert {trial["status"] for trial in trials} == {"finished", "stopped"}
    data = load_data("sample")
    for trial in trials:
        for result in trial["results"]:
            recipe = load_recipe(out / "trials" / f"{trial['number']:04d}" / f"rung{result['rung']}" / "recipe.yaml")
            again = train_and_wait(
                data, recipe, tmp_path / "again" / f"{trial['number']}-{result['rung']}", device="cpu"
            )
            assert again.metrics["val_accuracy"] == result["score"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_that_finds_no_room_from_the_start_says_so_and_goes_on_when_there_is(
    small_disk: Path, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
    first = subprocess.run(command(small_disk / "out", 1), capture_output=True, text=True)
    assert first.returncode == 1
    assert "Traceback" not in first.stderr
    assert "disk" in first.stdout + first.stderr
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    subprocess.run(command(small_disk / "out", 1), check=True, capture_output=True)
    subprocess.run(command(tmp_path / "whole", 1), check=True, capture_output=True)
    assert outcome(small_disk / "out") == outcome(tmp_path / "whole")
