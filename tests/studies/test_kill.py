"""SIGKILL of a study and of its workers at random moments: nothing lost, nothing doubled, the same accuracies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.workers import workers_of

KILLS = 10
TRIALS = 4
SETTINGS = ("epochs=3", "epoch_images=3000")


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


def kill_now_and_then(out: Path, jobs: int, seconds: float, draw: random.Random) -> int:
    """Run the study over and over, killing it or one of its workers, and then to its end; return the kills."""
    kills = 0
    while kills < KILLS:
        with (out.parent / "said").open("wb") as said:
            process = subprocess.Popen(command(out, jobs), stdout=said, stderr=said, start_new_session=True)
        try:
            process.wait(draw.uniform(0.1, 1.0) * min(seconds, 25.0))
        except subprocess.TimeoutExpired:
            workers = workers_of(process.pid)
            if workers and draw.random() < 0.5:
                os.kill(draw.choice(workers).pid, signal.SIGKILL)
                code = process.wait(120)
                said_last = (out.parent / "said").read_text()
                if code == 0:  # it had handed over its last result
                    assert len(results(out)) == TRIALS, said_last
                else:
                    assert code == 1, said_last
                    assert "run the same command again" in said_last
            else:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            kills += 1
            continue
        assert process.returncode == 0, (out.parent / "said").read_text()
        break
    subprocess.run(command(out, jobs), check=True, capture_output=True)
    return kills


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_killed_ten_times_ends_with_the_accuracies_of_an_undisturbed_one(jobs: int, tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run(command(tmp_path / "whole", jobs), check=True, capture_output=True)
    seconds = time.monotonic() - started
    kills = kill_now_and_then(tmp_path / "cut", jobs, seconds, random.Random(jobs))
    assert kills >= 4, f"the study ended after {kills} kills only; make it longer"
    whole, cut = results(tmp_path / "whole"), results(tmp_path / "cut")
    assert len(whole) == TRIALS
    assert cut == whole
    openings = [json.loads(line) for line in (tmp_path / "cut" / "test-openings.jsonl").read_text().splitlines()]
    assert {opening["why"] for opening in openings} == {f"compare {name.removeprefix('trials/')}" for name in whole}
