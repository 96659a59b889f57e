"""Whether one way to run a classifier may take another's place: faster, and as accurate.

A file that computes the same function in float32, which its conversion has shown, has to be faster alone. Any other has
to pass a trial as well: int8 files of two tools are two different networks, even where both are called int8.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyweight.data.dataset import Dataset
from flyweight.measure.trial import Answers, Range, Speed, trial_of

FLOAT = "fp32"


@dataclass(frozen=True)
class Replacement:
    """The answer, and why. `change` is that of the accuracy; None where the function is the same."""

    ships: bool
    because: str
    change: Range | None


def may_replace(before: Answers, after: Answers, dataset: Dataset, part: str, speed: Speed) -> Replacement:
    """Return whether the second may run in place of the first.

    Args:
        before, after: What both answer on the same images; of the same variant where only the threads differ.
        part: Which images these are, in words.
        speed: Of both on the device that matters.
    """
    times = f"{speed.after_ms:.3g} ms against {speed.before_ms:.3g} ms"
    same_file = before.variant.file == after.variant.file and before.side.backend == after.side.backend
    if same_file or before.side.precision == after.side.precision == FLOAT:
        if speed.disturbed:
            return Replacement(False, f"other programs had the processor while it was timed ({times})", None)
        if speed.verdict != "faster":
            return Replacement(False, f"it is not measurably faster: {times}", None)
        return Replacement(True, f"it computes the same function, and is faster: {times}", None)
    trial = trial_of(before, after, dataset, part=part, speed=speed, promises=("faster",))
    return Replacement(trial.ship, "; ".join(trial.because), trial.change)
