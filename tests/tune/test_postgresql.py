"""One search on a real PostgreSQL server, by the workers of two machines: no trial lost, none repeated."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import yaml
from tests.tune.at_once import open_at_once

from flyweight.data.sources import load_data
from flyweight.train.recipe import load_recipe
from flyweight.train.run import train_and_wait

STALE = 10.0  # s, in place of a minute
OWNER = "postgres"  # Debian's user of the server, which does not run as root
SPACE = {
    "params": [
        {"key": "optim.lr", "low": 0.003, "high": 1.0, "log": True, "likely": 0.1},
        {"key": "label_smoothing", "low": 0.0, "high": 0.3},
    ],
    "fixed": {"model.name": "tiny_cnn_4"},
}


def find_server() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [
        Path(path) for path in [shutil.which("postgres")] if path
    ]
    return found[-1].parent if found else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database."""
    programs = find_server()
    if programs is None:
        assert os.environ.get("CI") != "true", "CI installs postgresql (.ci/apt.txt)"
        pytest.skip("there is no PostgreSQL server: apt-get install postgresql")
    user = OWNER if os.getuid() == 0 else getpass.getuser()
    folder = Path("/tmp" if os.getuid() == 0 else tmp_path_factory.mktemp("pg")) / f"flyweight-pg-{os.getpid()}"
    folder.mkdir()
    if os.getuid() == 0:
        shutil.chown(folder, user)
    who: dict[str, Any] = {"user": user} if os.getuid() == 0 else {}
    try:
        make = [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "me"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **who)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-k {folder} -h 127.0.0.1 -p {port} -c fsync=off"
        start = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start"]
        subprocess.run(start, check=True, cwd=folder, **who)
        yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
        stop = [programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, capture_output=True, cwd=folder, **who)
    finally:
        shutil.rmtree(folder)


def command(url: str, out: Path, name: str, trials: int) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    (out / "space.yaml").write_text(yaml.safe_dump(SPACE))
    sets = [word for one in ("epochs=3", "data.image_size=12", "data.train_fraction=0.3") for word in ("--set", one)]
    words = ["tune", "sample", "--recipe", "smoke", *sets, "--space", str(out / "space.yaml"), "--rungs", "2"]
    words += ["--trials", str(trials), "--storage", url, "--name", name, "--jobs", "1", "--out", str(out), "--json"]
    return [sys.executable, "-m", "flyweight", *words]


def test_processes_that_open_a_new_study_at_once_all_find_it(server: str) -> None:
    server_of, _, _ = server.rpartition("/")
    maker = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    for name in ("first", "second", "third"):  # a race is lost now and then
        with maker.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        assert open_at_once(f"{server_of}/{name}") == [""] * 4
        with sqlalchemy.create_engine(f"{server_of}/{name}", poolclass=sqlalchemy.NullPool).connect() as connection:
            assert list(connection.execute(sqlalchemy.text("SELECT study_name FROM studies"))) == [("one",)]


def on_machine(name: str, words: list[str]) -> list[str]:
    """Return a command that runs under another host name: for Flyweight, on another machine."""
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
    can = shutil.which("unshare") and subprocess.run([*renamed, "true"], capture_output=True).returncode == 0
    if not can:
        assert os.environ.get("CI") != "true", "CI runs these tests as root, with unshare"
        pytest.skip("another host name needs root and unshare (util-linux)")
    return [*renamed, *words]


def impatient(words: list[str]) -> list[str]:
    """Return a `flyweight` command that takes over sooner what another machine no longer says it is at."""
    program = (
        "from flyweight.tune import store\n"
        f"store.STALE_SECONDS, store.BEAT_SECONDS = {STALE}, 0.5\n"
        "from flyweight.cli import main\n"
        "main()"
    )
    return [sys.executable, "-c", program, *words[3:]]


def check_by_rerun(trial: dict[str, Any], machines: list[Path], again: Path) -> None:
    """Train each rung of a trial again, from the recipe that the machine that finished it resolved."""
    for result in trial["results"]:
        place = f"trials/{trial['number']:04d}/rung{result['rung']}"
        (finished,) = [out / place for out in machines if (out / place / "trained.json").is_file()]
        recipe = load_recipe(finished / "recipe.resolved.yaml")
        trained = train_and_wait(load_data("sample"), recipe, again / place, device="cpu")
        assert trained.metrics["val_accuracy"] == result["score"]


def test_two_machines_share_a_search_and_no_trial_is_lost_or_repeated(server: str, tmp_path: Path) -> None:
    machines = [tmp_path / "one", tmp_path / "two"]
    asked = [on_machine(out.name, command(server, out, "shared", 6)) for out in machines]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for words in asked]
    said = [process.communicate(timeout=500)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    reports = [json.loads(text) for text in said]
    trials = reports[0]["trials"]
    assert [trial["number"] for trial in trials] == list(range(6))
    assert {trial["status"] for trial in trials} == {"finished", "stopped"}
    assert {trial["deaths"] for trial in trials} == {0}
    assert len({json.dumps(trial["values"]) for trial in trials}) == 6
    folders = [sorted(path.relative_to(out) for path in out.glob("trials/*/rung*")) for out in machines]
    assert not set(folders[0]) & set(folders[1])  # what one trained the other did not
    done = {f"trials/{trial['number']:04d}/rung{result['rung']}" for trial in trials for result in trial["results"]}
    assert {str(path) for part in folders for path in part} == done
    assert all(folders)
    for trial in trials:
        check_by_rerun(trial, machines, tmp_path / "again")


@pytest.mark.slow
def test_what_a_machine_that_died_was_at_is_taken_over_by_the_other(server: str, tmp_path: Path) -> None:
    machines = [tmp_path / "one", tmp_path / "two"]
    asked = [on_machine(out.name, impatient(command(server, out, "taken", 3))) for out in machines]
    first = subprocess.Popen(asked[0], stdout=subprocess.DEVNULL)
    left = stop_in_training(server, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert left.owner.startswith("one:")
    start = time.monotonic()
    second = subprocess.run(asked[1], capture_output=True, check=True)
    assert time.monotonic() - start > STALE  # of another machine only the silence tells
    trials = json.loads(second.stdout)["trials"]
    assert len(trials) == 3
    assert {trial["status"] for trial in trials} <= {"finished", "stopped"}
    number, rung = map(int, left.work.split("/"))
    assert [trial["deaths"] for trial in trials] == [int(one == number) for one in range(3)]
    (death,) = deaths(server, number)
    assert (death["rung"], death["epochs"], death["worker"]) == (rung, left.epochs, left.owner)
    assert (machines[1] / f"trials/{number:04d}/rung{rung}/trained.json").is_file()  # from its first epoch on
    for trial in trials:
        check_by_rerun(trial, machines, tmp_path / "again")


def stop_in_training(url: str, process: subprocess.Popen[bytes]) -> Any:
    """Stop a machine after an epoch, in the middle of a training of three; return what it has claimed."""
    until = time.monotonic() + 200
    with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT").connect() as asking:
        while time.monotonic() < until:
            process.send_signal(signal.SIGSTOP)
            if sqlalchemy.inspect(asking).has_table("flyweight_claims"):
                claims = "SELECT work, owner, epochs FROM flyweight_claims WHERE epochs IN (1, 2) AND study = 'taken'"
                if row := asking.execute(sqlalchemy.text(claims)).first():
                    return row
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
    raise AssertionError("no epoch was trained")


def deaths(url: str, number: int) -> list[dict[str, Any]]:
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": sqlalchemy.NullPool})
    found: list[dict[str, Any]] = (
        optuna.load_study(study_name="taken", storage=storage).trials[number].user_attrs["deaths"]
    )
    storage.remove_session()
    return found
