"""What a search has cost beside what was predicted: every training, failed ones too, and weighing its networks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from flyweight.report.cost import CostFacts, SecondsFacts, seconds_of
from flyweight.runtime.energy import energy_of
from flyweight.train.pace import CORE, SECONDS, total_seconds
from flyweight.tune.brackets import count_trainings
from flyweight.tune.forecast import network_of, predicted_trainings
from flyweight.tune.search import Search
from flyweight.tune.space import keys_of
from flyweight.tune.trials import FAILED, WEIGHING, rungs_of


class Watch:
    """What an attempt at a training takes here, stopped while others have the process.

    Attributes:
        begun: Epochs that earlier attempts made.
    """

    def __init__(self, history: Path) -> None:
        self.history, self.begun = history, len(_rows(history))
        self.wall = self.core = 0.0
        self.go_on()

    def stop(self) -> None:
        """Count what went by since it was begun, or went on."""
        self.wall += time.monotonic() - self._wall
        self.core += time.process_time() - self._core
        self.go_on()

    def go_on(self) -> None:
        """Count from now on."""
        self._wall, self._core = time.monotonic(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of a training that failed: of its epochs, and of the one it was at as computing."""
        self.stop()
        rows = _rows(self.history)
        known, mine = seconds_of(rows), seconds_of(rows[self.begun :])
        known["computing"] += max(0.0, self.wall - sum(mine[key] for key in SECONDS))
        known[CORE] += max(0.0, self.core - mine[CORE])
        return known


def _rows(history: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in history.read_text("utf-8").splitlines()] if history.is_file() else []


def cost_of(search: Search, trials: Sequence[FrozenTrial]) -> CostFacts:
    """Return what all trainings of the search were predicted to take, and what those at their end took.

    Not known, and so not in it: an epoch in which a worker died, and the epochs of a training that another machine
    began again. Energy is that of this machine.
    """
    each, probes = predicted_trainings(search)
    counted = count_trainings(search.shapes, search.trials)
    means = [_mean([rungs[rung] for rungs in each.values()]) for rung in range(len(search.ladder))] if each else []
    went, unsplit, both = [], [], []
    for trial in trials:
        went += trial.user_attrs.get(FAILED, ())
        network = network_of(search, keys_of(search.space.params, trial.params))
        for rung, result in rungs_of(search, trial).items():
            if "own_seconds" not in result:
                unsplit.append(result["seconds"])
                continue
            went.append(result["own_seconds"])
            if network in each:
                both.append((each[network][rung], result["own_seconds"]))
    joules, calls = energy_of(search.out)
    return CostFacts(
        device=search.device,
        runs=sum(counted.values()),
        predicted_runs=sum(counted.values()) if means else 0,
        predicted=_facts(
            total_seconds({key: count * means[rung][key] for key in means[rung]} for rung, count in counted.items())
            if means
            else {}
        ),
        measured_runs=len(went),
        measured=_facts(total_seconds(went)),
        unsplit_runs=len(unsplit),
        unsplit_seconds=sum(unsplit),
        both_runs=len(both),
        both_predicted=_facts(total_seconds(predicted for predicted, _ in both)),
        both_measured=_facts(total_seconds(measured for _, measured in both)),
        probes_seconds=probes,
        joules=joules,
        energy_calls=calls,
    )


def ended_trainings(search: Search, trials: Sequence[FrozenTrial]) -> int:
    """Return how many trainings are at their end, failed ones too."""
    return sum(len(rungs_of(search, trial)) + len(trial.user_attrs.get(FAILED, ())) for trial in trials)


def weighing(trials: Sequence[FrozenTrial]) -> tuple[int, float]:
    """Return how many trials had their network weighed, or looked up, and the seconds that took by the clock."""
    known = [trial.user_attrs[WEIGHING] for trial in trials if WEIGHING in trial.user_attrs]
    return len(known), sum(known)


def _mean(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: value / len(parts) for key, value in total_seconds(parts).items()}


def _facts(seconds: Mapping[str, float]) -> SecondsFacts:
    return SecondsFacts(**{key: seconds.get(key, 0.0) for key in (*SECONDS, CORE)})
