"""The database of a search: one decides at a time, nothing is claimed twice, and the dead hold nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from tests.tune.at_once import open_at_once

from flyweight.errors import OutputError, RecipeError
from flyweight.tune import store as module
from flyweight.tune.store import LOCK, Owner, Store, open_store, without_password

FACTS = {"code of flyweight.train": "1", "data": "abc"}


def opened(folder: Path, **facts: str) -> Store:
    return open_store(f"sqlite:///{folder}/study.db", "one", facts={**FACTS, **facts}, directions=["maximize"])


def held(store: Store, *, dead: bool = False) -> dict[str, Owner]:
    return {claim.work: claim.owner for claim in store.claims() if claim.dead == dead}


def dead(store: Store) -> Owner:
    """Return a process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of(process.pid)  # while it lives: what has ended tells no start
    process.communicate(b"\n")
    return owner


def test_work_is_claimed_once_and_given_back(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert first.claim("3/0")
    assert not second.claim("3/0")
    assert held(second) == {"3/0": Owner.me()}
    first.release("3/0")
    assert second.claim("3/0")


def test_of_many_that_claim_at_once_one_gets_it(tmp_path: Path) -> None:
    stores = [opened(tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(lambda store: store.claim("0/0"), stores)) == 1


def test_the_claims_of_a_process_that_died_are_known_at_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.owner = dead(store)
    assert store.claim("3/0")
    assert store.claim(LOCK)
    other = opened(tmp_path)
    assert set(held(other, dead=True)) == {"3/0", LOCK}
    assert held(other) == {}
    with other.deciding():
        assert held(other) == {LOCK: Owner.me()}
    for claim in other.claims():
        other.drop(claim)
    assert other.claim("3/0")


def test_the_claims_of_another_machine_are_dropped_when_its_beat_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALE_SECONDS", 0.3)
    store, other = opened(tmp_path), opened(tmp_path)
    store.owner = Owner("elsewhere", 1, "1")
    assert store.claim("3/0")
    for _ in range(4):
        threading.Event().wait(0.15)
        assert store.beat("3/0")
        assert "3/0" in held(other)
    threading.Event().wait(0.4)
    (claim,) = other.claims()
    assert claim.dead
    other.drop(claim)
    assert not store.beat("3/0")  # it is told that it lost it


def test_a_claim_that_was_taken_over_is_told_while_its_holder_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    store = opened(tmp_path)
    store.claim("3/0")
    with store.beating("3/0") as lost:
        assert not lost.wait(0.3)
        store.release("3/0")
        assert lost.wait(5.0)


def test_processes_that_open_a_new_study_at_once_all_find_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    assert open_at_once(url) == [""] * 4
    assert optuna.study.get_all_study_names(url) == ["one"]


def test_one_decides_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def decide(store: Store) -> None:
        nonlocal inside, most
        for _ in range(3):
            with store.deciding():
                with guard:
                    inside += 1
                    most = max(most, inside)
                threading.Event().wait(0.01)
                with guard:
                    inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decide, [opened(tmp_path) for _ in range(4)]))
    assert most == 1


def test_a_study_of_other_data_or_code_is_refused_by_what_differs(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(RecipeError, match=r"another data \(data: abc there, xyz here\)"):
        opened(tmp_path, data="xyz")
    with pytest.raises(RecipeError, match=r"another code of flyweight\.train"):
        opened(tmp_path, **{"code of flyweight.train": "2"})
    with pytest.raises(RecipeError, match=r"another version of torch \(version of torch: None there, 3 here\)"):
        opened(tmp_path, **{"version of torch": "3"})


def test_optuna_itself_opens_the_study(tmp_path: Path) -> None:
    store = opened(tmp_path)
    number = store.add(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING))
    store.report(number, 100, 0.5)
    store.end(number, optuna.trial.TrialState.COMPLETE, [0.75])
    found = optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path}/study.db")
    assert found.best_value == 0.75
    assert found.trials[0].intermediate_values == {100: 0.5}


def test_a_database_that_is_locked_for_a_while_is_waited_for(tmp_path: Path) -> None:
    store = opened(tmp_path)
    holder = sqlite3.connect(tmp_path / "study.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.0, holder.execute, ("COMMIT",)).start()
    assert store.claim("0/0")


def test_a_database_that_stays_locked_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.2)
    store = opened(tmp_path)
    holder = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match="database is locked"):
        store.claim("0/0")
    holder.execute("ROLLBACK")
    assert store.claim("0/0")


@pytest.mark.parametrize("url", ["study.db", "oracle://x/y", "sqlite:////proc/none/study.db"])
def test_what_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(OutputError):
        open_store(url, "one", facts=FACTS, directions=["maximize"])


def test_a_password_is_never_shown() -> None:
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    with pytest.raises(OutputError) as caught:
        open_store("postgresql+psycopg://me:secret@127.0.0.1:1/db", "one", facts=FACTS, directions=["maximize"])
    assert "secret" not in str(caught.value)


def test_this_process_lives_and_a_number_used_again_is_another_process() -> None:
    me = Owner.me()
    assert not me.gone
    assert Owner.parse(str(me)) == me
    assert Owner(me.host, os.getpid(), "0").gone
    assert not Owner("elsewhere", os.getpid(), "0").gone


def test_a_study_from_before_claims_said_how_far_they_are_goes_on(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE flyweight_claims DROP COLUMN epochs"))
    again = opened(tmp_path)
    assert again.claim("3/0")
    assert [claim.epochs for claim in again.claims()] == [0]
    assert again.beat("3/0", 7)
    assert again.beat("3/0")
    assert [claim.epochs for claim in again.claims()] == [7]
