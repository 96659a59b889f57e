"""SIGKILL of a study and of its workers at random moments: nothing lost, nothing doubled, the same accuracies."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.workers import end, wait_for_a_moment, workers_of

KILLS = 10
TRIALS = 4
SETTINGS = ("epochs=16", "epoch_images=800")  # many epochs: each of the kills comes up to three later than the last


def command(out: Path, jobs: int) -> list[str]:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    models = ["--models", "tiny_cnn_8,tiny_resnet8_4", "--seeds", "2", "--jobs", str(jobs)]
    return [sys.executable, "-m", "flyweight", "compare", "sample", *models, *sets, "--out", str(out), "--json"]


def results(out: Path) -> dict[str, dict[str, object]]:
    """Return what each trial wrote, less its clock."""
    clocks = {"train_seconds", "own_seconds", "date"}
    found = {}
    for file in sorted((out / "trials").rglob("result.json")):
        content = json.loads(file.read_text())
        found[str(file.parent.relative_to(out))] = {key: content[key] for key in content if key not in clocks}
    return found


def kill_ten_times(out: Path, jobs: int, draw: random.Random) -> None:
    """Run the study over and over, killing it or one of its workers, and then to its end."""
    targets = ["study", "worker"] * (KILLS // 2)
    draw.shuffle(targets)
    said = out.parent / "said"
    for target in targets:
        with said.open("wb") as file:
            process = subprocess.Popen(command(out, jobs), stdout=file, stderr=file, start_new_session=True)
        try:
            wait_for_a_moment(process, out, draw)
            assert process.poll() is None, said.read_text()
            if target == "worker":
                kill_a_worker(process, draw)
                assert process.returncode == 1, said.read_text()
                assert "run the same command again" in said.read_text()
        finally:
            end(process)
    subprocess.run(command(out, jobs), check=True, capture_output=True)


def kill_a_worker(process: subprocess.Popen[bytes], draw: random.Random) -> None:
    """Kill workers until the study ends: one that had done its work, as the forecast's clock, does not end it."""
    until = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < until, "the study goes on without its workers"
        found = workers_of(process.pid)
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                draw.choice(found).kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10 if found else 0.05)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_killed_ten_times_ends_with_the_accuracies_of_an_undisturbed_one(jobs: int, tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole", jobs), check=True, capture_output=True)
    kill_ten_times(tmp_path / "cut", jobs, random.Random(jobs))
    whole, cut = results(tmp_path / "whole"), results(tmp_path / "cut")
    assert len(whole) == TRIALS
    assert cut == whole
    openings = [json.loads(line) for line in (tmp_path / "cut" / "test-openings.jsonl").read_text().splitlines()]
    assert {opening["why"] for opening in openings} == {f"compare {name.removeprefix('trials/')}" for name in whole}
