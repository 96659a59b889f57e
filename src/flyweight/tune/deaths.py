"""Workers that died: each death is noted in the study with what it was at; what kills again and again is given up.

Whoever next looks at the study finds the claim of a dead process and notes it, so it is the same for every engine and
for every machine. Three deaths at one place are held against a training where another process of the search outlived
them: when all are gone at once, the power failed, or somebody ended the command, and the training is seldom to blame.
But one that has taken the whole command with it six times, at the same place, is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from flyweight.errors import TrainingError
from flyweight.runtime.process import end_in_words
from flyweight.tune.search import Search
from flyweight.tune.store import LOCK, Claim, Owner, Store
from flyweight.tune.trials import CAUSE, DEATHS, rungs_of, trial_folder

AT_ONE_PLACE = 3  # deaths at the same epoch of the same training, before its trial is given up
WHOLE = 6  # the same, those counted that nothing of the search outlived
IN_A_ROW = 20  # deaths while nothing was finished, before the search is


How = Callable[[Owner], str]  # how a process ended, in words; "" where that is not known


def how_it_ended(owner: Owner) -> str:
    """Return how a process ended, in words, where it was one of this machine and its parent has not asked yet."""
    return end_in_words(owner.pid) if owner.here else ""


def bury(search: Search, store: Store, how: How = how_it_ended) -> set[str]:
    """Note the deaths there were and drop the claims of the dead; return the work of the living.

    The caller holds the lock of the study.
    """
    claims = store.claims()
    for claim in claims:
        if claim.dead:
            if claim.work != LOCK:
                _note(search, store, claim, how(claim.owner))
            store.drop(claim)
    return {claim.work for claim in claims if not claim.dead} - {LOCK}


def explain(store: Store, how: How) -> None:
    """Add how a worker ended to deaths that were noted by one who could not know. The caller holds the lock."""
    for trial in store.trials():
        noted = trial.user_attrs.get(DEATHS, ())
        told = [{**death, "how": death.get("how") or how(Owner.parse(death["worker"]))} for death in noted]
        if not trial.state.is_finished() and told != list(noted):
            store.note(trial.number, DEATHS, told)


def _note(search: Search, store: Store, claim: Claim, how: str) -> None:
    number, rung = map(int, claim.work.split("/"))
    trial = store.trials()[number]
    noted: list[dict[str, Any]] = list(trial.user_attrs.get(DEATHS, ()))
    worker = str(claim.owner)
    if any((death["worker"], death["rung"]) == (worker, rung) for death in noted):
        return  # whoever noted it died before the claim was dropped
    here_too = epochs_here(search, number, rung) if claim.owner.here else 0
    epochs = max(claim.epochs, here_too)  # what it said last; its files may lie on another machine
    noted.append({"rung": rung, "epochs": epochs, "worker": worker, "outlived": claim.outlived, "how": how})
    if trial.state.is_finished():
        return
    store.note(number, DEATHS, noted)
    cause = _held_against([death for death in noted if (death["rung"], death["epochs"]) == (rung, epochs)])
    if cause:
        store.note(number, CAUSE, cause)
        store.end(number, TrialState.FAIL)


def _held_against(here: Sequence[dict[str, Any]]) -> str:
    """Return why a training is given up, from its deaths at one place; "" where it is not."""
    outlived = sum(death["outlived"] for death in here)
    if outlived < AT_ONE_PLACE and len(here) < WHOLE:
        return ""
    how = next((death["how"] for death in reversed(here) if death.get("how")), "")
    who = f"{outlived} workers died" if outlived >= AT_ONE_PLACE else f"the command died {len(here)} times"
    return f"{who} at it, after {here[-1]['epochs']} epochs, and got no further{how and ': the last was '}{how}"


def epochs_here(search: Search, number: int, rung: int) -> int:
    """Return how far a training is in the folder of this machine."""
    history = trial_folder(search, number) / f"rung{rung}" / "history.jsonl"
    return len(history.read_text("utf-8").splitlines()) if history.is_file() else 0


@dataclass
class Patience:
    """How many workers may die one after the other while the search finishes nothing: 20."""

    deaths: int = 0
    finished: int = 0

    def died(self, search: Search, trials: Sequence[FrozenTrial], how: str = "") -> None:
        """Count a death, and how it was. Raises TrainingError where there were too many."""
        finished = sum(len(rungs_of(search, trial)) + trial.state.is_finished() for trial in trials)
        self.deaths = 1 if finished > self.finished else self.deaths + 1
        self.finished = finished
        if self.deaths >= IN_A_ROW:
            raise TrainingError(
                f"{self.deaths} workers died one after the other, and nothing was finished meanwhile"
                + (f"; the last was {how}" if how else ""),
                do="look for want of memory in the log of the system (dmesg, ray status); use fewer --jobs",
                more="docs/tuning.md#going-on",
            )
