"""What a study costs, as facts: predicted before the first run, measured after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from flyweight.report.facts import Count, Fact
from flyweight.runtime.environment import CPU, is_cpu

NonNegative = Annotated[float, Field(ge=0.0)]


class SecondsFacts(Fact):
    """Seconds of one training: waiting for batches, computing (and whatever else the loop does), validating.

    Attributes:
        core: Of the processor in all of them; what is predicted is nothing else, and 0 where a GPU trains.
    """

    loading: NonNegative = 0.0
    computing: NonNegative = 0.0
    validating: NonNegative = 0.0
    core: NonNegative = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.loading + self.computing + self.validating


def seconds_of(history: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return what the epochs of a run took, by what it went in: the rows are those of its history."""
    rows = list(history)
    train = sum(row["train_seconds"] for row in rows)
    load = sum(row.get("load_seconds", 0.0) for row in rows)  # a probe of the head has none of its own
    validating = sum(row.get("val_seconds", 0.0) for row in rows)
    core = sum(row.get("core_seconds", 0.0) for row in rows)
    return {"loading": load, "computing": train - load, "validating": validating, "core": core}


class ArmCostFacts(Fact):
    """One run of an arm: predicted, and the mean of the finished ones that did not diverge; None where not known."""

    dataset: str
    arm: str
    title: str
    runs: Count
    predicted: SecondsFacts | None = None
    finished: Count
    measured: SecondsFacts | None = None


class CostFacts(Fact):
    """Seconds of training, without scoring, exporting and timing the files: of cores, or by the clock of a GPU.

    Attributes:
        device: What trained, as torch names it.
        runs: Those of the study; `predicted` is of `predicted_runs` of them.
        measured: Of the `measured_runs` finished ones, those that diverged included. `unsplit_runs` were run by a
            version that kept only the sum of loading and computing.
        both_predicted, both_measured: Of the runs that were predicted and are finished.
        probes_seconds: What predicting took.
        machines: Where it was predicted.
        joules: Of all processor packages over the calls that could tell; None: this machine does not tell.
        energy_calls: How many calls could tell, and how many there were.
    """

    device: str = CPU
    runs: Count
    predicted_runs: Count
    predicted: SecondsFacts
    measured_runs: Count
    measured: SecondsFacts
    unsplit_runs: Count = 0
    unsplit_seconds: NonNegative = 0.0
    both_runs: Count
    both_predicted: SecondsFacts
    both_measured: SecondsFacts
    probes_seconds: NonNegative = 0.0
    machines: tuple[str, ...] = ()
    joules: float | None = None
    energy_calls: tuple[int, int] = (0, 0)
    arms: tuple[ArmCostFacts, ...] = ()

    @property
    def unit(self) -> str:
        """What its hours are of: core or GPU."""
        return "core" if is_cpu(self.device) else "GPU"

    def spent(self, seconds: SecondsFacts) -> float:
        """Return the seconds of that unit: of cores, or by the clock while a GPU was taken."""
        return seconds.core if is_cpu(self.device) else seconds.total
