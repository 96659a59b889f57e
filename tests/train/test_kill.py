"""SIGKILL at random moments of one run, resumed each time: the weights of an undisturbed run, and no damaged file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flyweight.runtime.bundle import Bundle
from flyweight.train.trained import Trained

KILLS = 20
SETTINGS = ["epochs=14", "threads=1", "precision=fp32", "channels_last=true", "compile=false", "model.name=tiny_cnn_8"]


def command(out: Path) -> list[str]:
    code = (
        "import sys; from flyweight.train import run; run.CHECKPOINT_SECONDS = 0.2; "
        "from flyweight.cli import main; main()"
    )
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return [sys.executable, "-c", code, "train", "sample", "--recipe", "smoke", "--out", str(out), *sets]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_killed_twenty_times_ends_with_the_same_weights_and_no_damaged_file(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    seconds = time.monotonic() - started
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(command(tmp_path / "cut"), stdout=said, stderr=said, start_new_session=True)
        try:
            # From the moment of start-up to well inside training; late enough to make progress now and then.
            process.wait(draw.uniform(0.05, 1.0) * min(seconds, 12.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, (tmp_path / "said").read_text()
        assert kills >= 5, f"the run ended after {kills} kills only; make it longer"
        break
    subprocess.run(command(tmp_path / "cut"), check=True, capture_output=True)
    whole, cut = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    Trained.load(tmp_path / "cut")
    Bundle.open(tmp_path / "cut" / "bundle")
    assert not list((tmp_path / "cut").glob(".*.part"))
