"""What every engine does alike: a trial that cannot be trained fails with its cause, and the search goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tune.test_ray import training
from tests.workers import end

TOO_WIDE = 10**8  # a weight of 10^17 values: no allocator gives so much
RAY = pytest.param("ray", "2", marks=[pytest.mark.slow, pytest.mark.timeout(1200)])
ENGINES = [("local", "1"), pytest.param("local", "2", marks=pytest.mark.slow), RAY]


def command(
    out: Path, engine: str, jobs: str, *more: str, widths: tuple[int, ...] = (), network: str = "tiny_cnn_4"
) -> list[str]:
    space = {
        "params": [
            {"key": "optim.lr", "low": 0.01, "high": 0.1, "log": True},
            *([{"key": "model.args.width", "choices": list(widths)}] if widths else []),
        ],
        "fixed": {"model.name": network, "ema_decay": None},
    }
    (out.parent / "space.yaml").write_text(yaml.safe_dump(space))
    sets = [word for one in ("data.image_size=8", "data.train_fraction=0.3") for word in ("--set", one)]
    words = ["tune", "sample", "--recipe", "smoke", "--space", str(out.parent / "space.yaml"), *sets, "--stop", "none"]
    words += ["--trials", "4", "--sampler", "qmc", "--engine", engine, "--jobs", jobs, "--out", str(out), "--json"]
    return [sys.executable, "-m", "flyweight", *words, *more]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}


@pytest.mark.parametrize(("engine", "jobs"), ENGINES)
def test_a_training_that_torch_or_the_memory_refuses_is_a_failed_trial_with_its_first_line_as_cause(
    engine: str, jobs: str, tmp_path: Path
) -> None:
    words = command(tmp_path / "out", engine, jobs, "--set", "epochs=1", widths=(4, TOO_WIDE))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials: list[dict[str, Any]] = json.loads(done.stdout)["trials"]
    assert len(trials) == 4
    wide = [trial for trial in trials if trial["values"]["model.args.width"] == TOO_WIDE]
    assert 0 < len(wide) < 4
    for trial in trials:
        assert trial["deaths"] == 0
        assert trial["status"] == ("failed" if trial in wide else "finished")
    assert all(trial["cause"].startswith("RuntimeError: ") and "memory" in trial["cause"] for trial in wide)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_trial_at_which_workers_are_killed_fails_and_says_how_they_ended(engine: str, tmp_path: Path) -> None:
    """An epoch is longer than what the test needs to find the worker, so every death is at the same place."""
    more = ("--set", "epochs=1", "--set", "data.image_size=64", "--set", "data.train_fraction=0.1", "--trials", "2")
    out = tmp_path / "out"
    with (tmp_path / "said").open("w") as said, (tmp_path / "error").open("w") as error:
        process = subprocess.Popen(
            command(out, engine, "2", *more, network="resnet18"),
            env=environment(),
            stdout=said,
            stderr=error,
            start_new_session=True,
        )
    try:
        killed: set[int] = set()
        until = time.monotonic() + 900
        while len(killed) < 3:
            assert process.poll() is None, (tmp_path / "error").read_text()
            assert time.monotonic() < until, "no worker at the first trial"
            for owner in training(out, "0/0") if (out / "trials").is_dir() else []:
                if owner.pid not in killed:
                    os.kill(owner.pid, signal.SIGKILL)
                    killed.add(owner.pid)
            time.sleep(0.02)
        assert process.wait(900) == 0, (tmp_path / "error").read_text()
    finally:
        end(process)
    first = json.loads((tmp_path / "said").read_text())["trials"][0]
    assert (first["status"], first["deaths"]) == ("failed", 3)
    assert first["cause"].startswith("3 workers died at it, after 0 epochs, and got no further: the last was killed")
    assert "killed by signal 9" in first["cause"] or engine == "ray"  # Ray tells no signal to others
