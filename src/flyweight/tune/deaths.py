"""Workers that died: each death is noted in the study with what it was at; what kills again and again is given up.

Whoever next looks at the study finds the claim of a dead process and notes it, so it is the same for every engine and
for every machine. A death counts against a training only where another process of the search outlived it: when all of
them are gone at once, the power failed, or somebody ended the command, and the training is not to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from flyweight.errors import TrainingError
from flyweight.tune.search import Search
from flyweight.tune.store import LOCK, Claim, Store
from flyweight.tune.trials import CAUSE, DEATHS, rungs_of, trial_folder

AT_ONE_PLACE = 3  # deaths at the same epoch of the same training, before its trial is given up
IN_A_ROW = 20  # deaths while nothing was finished, before the search is


def bury(search: Search, store: Store) -> set[str]:
    """Note the deaths there were and drop the claims of the dead; return the work of the living.

    The caller holds the lock of the study.
    """
    claims = store.claims()
    for claim in claims:
        if claim.dead:
            if claim.work != LOCK:
                _note(search, store, claim)
            store.drop(claim)
    return {claim.work for claim in claims if not claim.dead} - {LOCK}


def _note(search: Search, store: Store, claim: Claim) -> None:
    number, rung = map(int, claim.work.split("/"))
    trial = store.trials()[number]
    noted: list[dict[str, Any]] = list(trial.user_attrs.get(DEATHS, ()))
    worker = str(claim.owner)
    if any((death["worker"], death["rung"]) == (worker, rung) for death in noted):
        return  # whoever noted it died before the claim was dropped
    here_too = epochs_here(search, number, rung) if claim.owner.here else 0
    epochs = max(claim.epochs, here_too)  # what it said last; its files may lie on another machine
    noted.append({"rung": rung, "epochs": epochs, "worker": worker, "outlived": claim.outlived})
    if trial.state.is_finished():
        return
    store.note(number, DEATHS, noted)
    here = [death for death in noted if (death["rung"], death["epochs"], death["outlived"]) == (rung, epochs, True)]
    if len(here) >= AT_ONE_PLACE:
        store.note(number, CAUSE, f"{AT_ONE_PLACE} workers died at it, after {epochs} epochs, and got no further")
        store.end(number, TrialState.FAIL)


def epochs_here(search: Search, number: int, rung: int) -> int:
    """Return how far a training is in the folder of this machine."""
    history = trial_folder(search, number) / f"rung{rung}" / "history.jsonl"
    return len(history.read_text("utf-8").splitlines()) if history.is_file() else 0


@dataclass
class Patience:
    """How many workers may die one after the other while the search finishes nothing: 20."""

    deaths: int = 0
    finished: int = 0

    def died(self, search: Search, trials: Sequence[FrozenTrial]) -> None:
        """Count a death. Raises TrainingError where there were too many."""
        finished = sum(len(rungs_of(search, trial)) + trial.state.is_finished() for trial in trials)
        self.deaths = 1 if finished > self.finished else self.deaths + 1
        self.finished = finished
        if self.deaths >= IN_A_ROW:
            raise TrainingError(
                f"{self.deaths} workers died one after the other, and nothing was finished meanwhile",
                do="look for want of memory in the log of the system (dmesg, ray status); use fewer --jobs",
                more="docs/tuning.md#going-on",
            )
