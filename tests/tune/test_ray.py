"""The same search on a Ray cluster of two nodes: the same trials, whatever dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.workers import end, epochs_in

from flyweight.errors import OutputError
from flyweight.tune.engines import ray as engine
from flyweight.tune.store import Owner

SPACE = {
    "params": [{"key": "optim.lr", "low": 0.003, "high": 1.0, "log": True, "likely": 0.1}],
    "fixed": {"model.name": "tiny_cnn_4"},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes on this machine, one core each."""
    script = """
import sys, time, warnings
warnings.simplefilter("ignore")
from ray.cluster_utils import Cluster
for left in (2, 1, 0):  # Ray gives a node 30 s to come up, which a busy machine may not
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        break
    except Exception:
        cluster.shutdown()
        if not left:
            raise
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, "no cluster: its own words are above"
    yield address
    process.communicate(timeout=300)


def command(out: Path, *more: str, trials: int = 4) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    (out / "space.yaml").write_text(yaml.safe_dump(SPACE))
    sets = [word for one in ("epochs=3", "data.image_size=12", "data.train_fraction=0.3") for word in ("--set", one)]
    words = ["tune", "sample", "--recipe", "smoke", *sets, "--space", "space.yaml", "--rungs", "2"]
    words += ["--trials", str(trials), "--sampler", "qmc", "--out", "out", "--json", *more]
    return [sys.executable, "-m", "flyweight", *words]


def environment(address: str | None) -> dict[str, str]:
    return {**os.environ, **({"RAY_ADDRESS": address} if address else {})}


def search(out: Path, *more: str, address: str | None = None, trials: int = 4) -> list[dict[str, Any]]:
    """Run a search; return its trials without their clocks."""
    words = command(out, *more, trials=trials)
    done = subprocess.run(words, cwd=out, env=environment(address), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return without_clocks(done.stdout)


def without_clocks(report: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report)["trials"]
    for trial in found:
        for result in trial["results"]:
            del result["seconds"], result["own_seconds"], result["done"]
    return found


def training(out: Path, work: str = "%/%") -> list[Owner]:
    """Return the workers that train something now, or one training, as the database of the study has them."""
    with contextlib.closing(sqlite3.connect(f"file:{out / 'study.db'}?mode=rw", uri=True, timeout=60)) as database:
        rows = database.execute("SELECT owner FROM flyweight_claims WHERE work LIKE ?", (work,)).fetchall()
    return [owner for owner in (Owner.parse(row[0]) for row in rows) if not owner.gone]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_nodes_end_with_the_trials_of_local_workers(cluster: str, tmp_path: Path) -> None:
    spread = search(tmp_path / "ray", "--engine", "ray", "--jobs", "2", address=cluster)
    here = search(tmp_path / "local", "--jobs", "1")
    assert spread == here
    assert search(tmp_path / "ray", "--engine", "ray", "--jobs", "2", address=cluster) == spread  # it goes on: nothing
    assert search(tmp_path / "ray", "--jobs", "1") == spread  # and with another engine


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_workers_of_the_cluster_that_are_killed_lose_and_double_nothing_and_are_counted(
    cluster: str, tmp_path: Path
) -> None:
    out, more = tmp_path / "ray", ("--set", "epochs=12", "--engine", "ray", "--jobs", "2")
    words = command(out, *more)
    with (tmp_path / "said").open("w") as said, (tmp_path / "error").open("w") as error:
        process = subprocess.Popen(
            words, cwd=out, env=environment(cluster), stdout=said, stderr=error, start_new_session=True
        )
    try:
        for kills in range(2):
            until = time.monotonic() + 600
            while epochs_in(out) < 1 + 4 * kills or not (at := training(out / "out")):
                assert process.poll() is None, (tmp_path / "error").read_text()
                assert time.monotonic() < until, "nothing is trained"
                time.sleep(0.02)
            os.kill(at[0].pid, signal.SIGKILL)
        assert process.wait(900) == 0, (tmp_path / "error").read_text()
    finally:
        end(process)
    killed = without_clocks((tmp_path / "said").read_text())
    assert sum(trial.pop("deaths") for trial in killed) == 2
    for trial in killed:
        del trial["died"]
    here = search(tmp_path / "local", "--set", "epochs=12", "--jobs", "1")
    assert [trial.pop("deaths") for trial in here] == [0] * 4
    assert [trial.pop("died") for trial in here] == [[]] * 4
    assert killed == here


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    words = ["tune", "sample", "--recipe", "smoke", "--engine", "ray", "--trials", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "flyweight", *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("failures", "starts"), [(1, True), (2, False)])
def test_a_cluster_of_ones_own_that_is_slow_to_start_is_started_once_more(
    failures: int, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        asked.append(options)
        if len(asked) <= failures:
            raise Exception("the node has not come up in 30 s")  # what Ray raises

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(engine.ray, "init", init)
    with contextlib.nullcontext() if starts else pytest.raises(OutputError, match="has not come up in 30 s"):
        assert engine._connect(jobs=2)
    assert [(options["address"], options["num_cpus"]) for options in asked] == [("local", 2)] * 2
