"""SIGKILL of a search and of its workers, a locked database, a full disk: nothing lost, doubled or changed."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.workers import workers_of

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
    """Return the trials of the report, less their clocks."""
    trials: list[dict[str, Any]] = json.loads((out / "report.json").read_text())["trials"]
    for trial in trials:
        for result in trial["results"]:
            del result["seconds"], result["done"]
    return trials


def disturb(out: Path, jobs: int, seconds: float, draw: random.Random) -> int:
    """Run the search over and over, killing it, a worker, or its database for a while; return how often."""
    kills = 0
    while kills < KILLS:
        with (out.parent / "said").open("wb") as said:
            process = subprocess.Popen(command(out, jobs), stdout=said, stderr=said, start_new_session=True)
        try:
            process.wait(draw.uniform(0.2, 1.0) * min(seconds, 30.0))
        except subprocess.TimeoutExpired:
            workers = workers_of(process.pid)
            if kills == 3 and (out / "study.db").is_file():
                lock(out / "study.db", 3.0)
            for _ in range(3):  # single workers are replaced while the search goes on
                if workers and draw.random() < 0.5:
                    worker = draw.choice(workers)
                    if worker.is_running():
                        worker.kill()
                        kills += 1
                    time.sleep(draw.uniform(0.5, 3.0))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, (out.parent / "said").read_text()
        break
    subprocess.run(command(out, jobs), check=True, capture_output=True)
    return kills


def lock(database: Path, seconds: float) -> None:
    holder = sqlite3.connect(database, timeout=30, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    holder.execute("COMMIT")
    holder.close()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_search_with_one_worker_killed_ten_times_ends_with_the_trials_of_an_undisturbed_one(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run(command(tmp_path / "whole", 1), check=True, capture_output=True)
    kills = disturb(tmp_path / "cut", 1, time.monotonic() - started, random.Random(0))
    assert kills >= 4, f"the search ended after {kills} kills only; make it longer"
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_search_with_two_workers_killed_ten_times_loses_and_doubles_nothing_and_every_accuracy_is_its_recipes(
    tmp_path: Path,
) -> None:
    out = tmp_path / "cut"
    kills = disturb(out, 2, 60.0, random.Random(1))
    assert kills >= 4, f"the search ended after {kills} kills only; make it longer"
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
def test_a_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    try:
        first = subprocess.run(command(small / "out", 1), capture_output=True, text=True)
        assert first.returncode == 1
        assert "Traceback" not in first.stderr
        assert "disk" in first.stdout + first.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        subprocess.run(command(small / "out", 1), check=True, capture_output=True)
        subprocess.run(command(tmp_path / "whole", 1), check=True, capture_output=True)
        assert outcome(small / "out") == outcome(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(small)], check=True)
