"""Deaths of workers are noted in the study, whoever finds them, and only what kills again and again is given up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from flyweight.errors import TrainingError
from flyweight.tune import store as module
from flyweight.tune.deaths import AT_ONE_PLACE, IN_A_ROW, WHOLE, Patience, bury, explain
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source
from flyweight.tune.store import Owner, Store, open_store
from flyweight.tune.trials import BRACKET, CAUSE, DEATHS, rung_key, trial_folder


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """A search of one rung, nothing of it trained."""
    labels = np.arange(200) % 2
    images = np.broadcast_to(labels[:, None, None, None] * 90, (200, 8, 8, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(200)  # no two alike
    np.savez(tmp_path / "two.npz", images=images, labels=labels)
    found, _ = plan_search(Source(str(tmp_path / "two.npz")), out=tmp_path / "out", recipe="smoke", stop="none")
    return found


def store_of(search: Search, began: float | None = None) -> Store:
    return open_store(search.storage, search.name, facts={"data": 1}, directions=search.directions, began=began)


def begin(store: Store) -> None:
    store.add(create_trial(state=TrialState.RUNNING, user_attrs={BRACKET: 0}))


def die_at(store: Store, work: str) -> None:
    """Leave the claim of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me, store.owner = store.owner, Owner.of(process.pid)  # while it lives: what has ended tells no start
    assert store.claim(work)
    store.owner = me
    process.communicate(b"\n")


def die_elsewhere(store: Store, work: str, epochs: int, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the claim of a process of another machine, whose beat stands still since it had trained `epochs`."""
    me, store.owner = store.owner, Owner("elsewhere", pid, "1")
    assert store.claim(work)
    assert store.beat(work, epochs)
    store.owner = me
    store.claims()  # its beat is seen
    monkeypatch.setattr(module, "STALE_SECONDS", 0.0)
    time.sleep(0.01)


def train_epochs(search: Search, epochs: int) -> None:
    folder = trial_folder(search, 0) / "rung0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.jsonl").write_text("{}\n" * epochs)


def trial(store: Store) -> FrozenTrial:
    return store.trials()[0]


def test_a_death_is_noted_once_with_where_it_was_and_the_work_is_free_again(search: Search) -> None:
    store = store_of(search)
    begin(store)
    train_epochs(search, 2)
    assert store.claim("7/0")  # this process lives
    die_at(store, "0/0")
    assert bury(search, store) == {"7/0"}
    assert bury(search, store) == {"7/0"}
    (death,) = trial(store).user_attrs[DEATHS]
    assert (death["rung"], death["epochs"], death["outlived"]) == (0, 2, True)
    assert store.claim("0/0")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how a process ended that is not one's own")
def test_how_a_worker_ended_is_in_the_death_and_in_the_cause(search: Search) -> None:
    store = store_of(search)
    begin(store)
    killed = "killed by signal 9, most likely for want of memory"
    for code, words in (("os._exit(3)", "ended with exit code 3"), *[("os.kill(os.getpid(), 9)", killed)] * 2):
        process = subprocess.Popen([sys.executable, "-c", f"import os; input(); {code}"], stdin=subprocess.PIPE)
        me, store.owner = store.owner, Owner.of(process.pid)
        assert store.claim("0/0")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        until = time.monotonic() + 30
        while not store.owner.gone:
            assert time.monotonic() < until
            time.sleep(0.01)
        store.owner = me
        bury(search, store)  # nobody has waited for the process yet
        process.wait()
        assert trial(store).user_attrs[DEATHS][-1]["how"] == words
    assert trial(store).user_attrs[CAUSE].endswith(f"and got no further: the last was {killed}")


def test_who_started_a_worker_adds_how_it_ended_where_another_noted_its_death(search: Search) -> None:
    store = store_of(search)
    begin(store)
    die_at(store, "0/0")
    bury(search, store)
    assert trial(store).user_attrs[DEATHS][0]["how"] == ""
    explain(store, lambda owner: "killed by signal 6")
    explain(store, lambda owner: "something else")
    assert trial(store).user_attrs[DEATHS][0]["how"] == "killed by signal 6"


def test_a_training_at_which_workers_die_at_one_place_fails_with_its_cause(search: Search) -> None:
    store = store_of(search)
    begin(store)
    for _ in range(AT_ONE_PLACE):
        assert trial(store).state is TrialState.RUNNING
        die_at(store, "0/0")
        bury(search, store)
    assert trial(store).state is TrialState.FAIL
    assert "3 workers died at it, after 0 epochs" in trial(store).user_attrs[CAUSE]


def test_a_training_that_gets_further_between_deaths_goes_on(search: Search) -> None:
    store = store_of(search)
    begin(store)
    for epochs in range(2 * AT_ONE_PLACE):
        train_epochs(search, epochs)
        die_at(store, "0/0")
        bury(search, store)
    assert trial(store).state is TrialState.RUNNING
    assert len(trial(store).user_attrs[DEATHS]) == 2 * AT_ONE_PLACE


def test_a_command_that_was_ended_whole_is_not_held_against_what_it_trained_until_the_sixth_time(
    search: Search,
) -> None:
    """One worker that is killed for memory again and again would else keep the search from ever going on."""
    begin(store_of(search))
    for count in range(WHOLE):
        train_epochs(search, 1)
        assert trial(store_of(search)).state is TrialState.RUNNING, count
        die_at(store_of(search), "0/0")
        bury(search, store_of(search))  # the same command again
    store = store_of(search)
    assert trial(store).state is TrialState.FAIL
    assert "the command died 6 times at it, after 1 epochs" in trial(store).user_attrs[CAUSE]


def test_a_death_that_a_worker_notes_who_came_later_counts_as_outlived_by_what_began_both(search: Search) -> None:
    command = store_of(search)
    begin(command)
    for _ in range(AT_ONE_PLACE):
        assert trial(command).state is TrialState.RUNNING
        die_at(store_of(search, command.began), "0/0")
        bury(search, store_of(search, command.began))
    assert trial(command).state is TrialState.FAIL
    assert "3 workers died at it" in trial(command).user_attrs[CAUSE]


def test_a_command_that_gets_further_each_time_is_never_held_against_what_it_trains(search: Search) -> None:
    begin(store_of(search))
    for epochs in range(2 * WHOLE):
        train_epochs(search, epochs // 2)
        die_at(store_of(search), "0/0")
        bury(search, store_of(search))
    assert trial(store_of(search)).state is TrialState.RUNNING


def test_workers_that_die_while_nothing_is_finished_end_the_search(search: Search) -> None:
    store, patience = store_of(search), Patience()
    begin(store)
    for _ in range(IN_A_ROW - 1):
        patience.died(search, store.trials())
    store.note(0, rung_key(0), {"score": 0.5})
    for _ in range(IN_A_ROW - 1):
        patience.died(search, store.trials())
    with pytest.raises(TrainingError, match=r"20 workers died one after the other.*the last was killed by signal 11"):
        patience.died(search, store.trials(), "killed by signal 11")


def test_deaths_on_another_machine_are_counted_where_they_were_there(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(search)
    begin(store)
    for number in range(2 * AT_ONE_PLACE):  # it got further each time, but nothing of that lies in this folder
        die_elsewhere(store, "0/0", number, number, monkeypatch)
        bury(search, store)
    assert trial(store).state is TrialState.RUNNING
    assert [death["epochs"] for death in trial(store).user_attrs[DEATHS]] == list(range(2 * AT_ONE_PLACE))


def test_deaths_at_one_epoch_on_other_machines_give_a_trial_up(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(search)
    begin(store)
    for number in range(AT_ONE_PLACE):
        die_elsewhere(store, "0/0", 4, number, monkeypatch)
        bury(search, store)
    assert trial(store).state is TrialState.FAIL
    assert "after 4 epochs" in trial(store).user_attrs[CAUSE]


def test_a_death_elsewhere_does_not_take_its_place_from_this_folder(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(search)
    begin(store)
    train_epochs(search, 5)  # of an earlier attempt here
    die_elsewhere(store, "0/0", 1, 1, monkeypatch)
    bury(search, store)
    assert [death["epochs"] for death in trial(store).user_attrs[DEATHS]] == [1]
