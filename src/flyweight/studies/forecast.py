"""What is left of a study, in core-hours, said before the first run; kept, to stand beside what was measured after."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from flyweight.errors import FlyweightError, TrainingError
from flyweight.files import write_json
from flyweight.runtime.environment import CPU, environment, is_cpu
from flyweight.studies.made_by import check_code
from flyweight.studies.schedule import one_thread
from flyweight.studies.study import Scale, Study, Trial
from flyweight.studies.trial import Place, claim
from flyweight.train.pace import SECONDS, total_seconds
from flyweight.train.run import check_device

PREDICTED = "predicted.json"
Seconds = dict[str, float]
Timed = tuple[dict[str, Seconds], dict[str, str], float]  # by arm: seconds, or why not; the share of a core


@dataclass(frozen=True)
class ArmForecast:
    """The runs of an arm that are not finished: how many, the seconds of one, and whether a finished one told them."""

    dataset: str
    arm: str
    runs: int
    each: Seconds
    measured: bool

    @property
    def total(self) -> float:
        """Seconds of one run."""
        return sum(self.each[key] for key in SECONDS)


@dataclass(frozen=True)
class Forecast:
    """What is left to run.

    Attributes:
        arms: Those of which the seconds are known.
        unknown: Why those of the others are not, by "dataset/arm".
        probes_seconds: What timing the steps took in this call; 0 where nothing was timed.
        share: Of a core that they got, beside what else ran on the machine.
        device: What trains: seconds are of a core, or by the clock of a GPU.
    """

    arms: tuple[ArmForecast, ...]
    unknown: dict[str, str] = field(default_factory=dict)
    probes_seconds: float = 0.0
    share: float = 1.0
    device: str = CPU

    @property
    def runs(self) -> int:
        """Runs of known length that are left."""
        return sum(arm.runs for arm in self.arms)

    @property
    def seconds(self) -> Seconds:
        """Seconds of all of them, by what they go in."""
        found = total_seconds({key: arm.runs * arm.each[key] for key in SECONDS} for arm in self.arms)
        return {key: found[key] for key in SECONDS}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        arms = [{**vars(arm), "each": dict(arm.each)} for arm in self.arms]
        left = {"runs": self.runs, "seconds": self.seconds, "arms": arms}
        return {**left, "unknown": self.unknown, "device": self.device}


def foresee(
    study: Study, scale: Scale, order: Sequence[Trial], place: Place, say: Callable[[str], None] | None = None
) -> Forecast:
    """Return what is left of the wanted trials, and write down in `predicted.json` what was not predicted before.

    Arms with a finished run take its seconds. Of the others a few steps are timed, in a process of one thread.

    Args:
        say: Told, before anything is timed, that it will be.

    Raises:
        RecipeError: The folder holds another study, or runs by other code.
        TrainingError: torch cannot use the device.
    """
    check_device(place.device)
    claim(study, scale, place)
    check_code(study, order, place)
    results = {trial: place.result(trial) for trial in order}
    unfinished = {arm_key(trial): [one for one in order if _same_arm(one, trial, results)] for trial in order}
    left = {key: runs for key, runs in unfinished.items() if runs}
    went = measured({trial: result for trial, result in results.items() if result is not None})
    known = read_predicted(place)
    asked = [runs[0] for key, runs in left.items() if key not in went and key not in known["arms"]]
    took, share = 0.0, 1.0
    if asked:
        if say:
            say(f"timing a few steps of each distinct network of {len(asked)} arms, to say what the study will cost")
        started = time.perf_counter()
        found, failed, share = _timed(study, scale, asked, place)
        took = time.perf_counter() - started
        known = _written(known, found, failed, took, share, place)
    each = {**known["arms"], **went}
    arms = tuple(
        ArmForecast(runs[0].dataset, runs[0].arm, len(runs), each[key], key in went)
        for key, runs in left.items()
        if key in each
    )
    unknown = {key: known["unknown"].get(key, "") for key in left if key not in each}
    return Forecast(arms, unknown, took, share, place.device)


def _same_arm(one: Trial, trial: Trial, results: Mapping[Trial, Any]) -> bool:
    return arm_key(one) == arm_key(trial) and results[one] is None


def arm_key(trial: Trial) -> str:
    """Return the name under which an arm's seconds are kept."""
    return f"{trial.dataset}/{trial.arm}"


def read_predicted(place: Place) -> dict[str, Any]:
    """Return what earlier calls predicted: seconds of one run by arm, and why there are none of others."""
    file = place.out / PREDICTED
    found: dict[str, Any] = {"arms": {}, "unknown": {}, "probes": []}
    return json.loads(file.read_text("utf-8")) if file.is_file() else found


def measured(results: Mapping[Trial, dict[str, Any]]) -> dict[str, Seconds]:
    """Return the mean seconds of an arm's finished runs, less those that diverged or that an older version ran."""
    runs: dict[str, list[Seconds]] = {}
    for trial, result in results.items():
        if "own_seconds" in result and "diverged" not in result:
            runs.setdefault(arm_key(trial), []).append(result["own_seconds"])
    sums = {key: total_seconds(them) for key, them in runs.items()}
    return {key: {name: total / len(runs[key]) for name, total in sums[key].items()} for key in runs}


def _timed(study: Study, scale: Scale, asked: Sequence[Trial], place: Place) -> Timed:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread) as pool:
        try:
            return pool.submit(_time_arms, study, scale, list(asked), place).result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "the process that timed a few steps of each network died",
                do="run the same command again; if it dies each time, leave out what needs more memory than there is",
            ) from error


def _time_arms(study: Study, scale: Scale, asked: Sequence[Trial], place: Place) -> Timed:
    """Return a run's seconds by arm, what went wrong with others (their runs will say it too), and the share."""
    from flyweight.studies.predict import Predictor

    predictor = Predictor(study, scale, place)
    found, failed = {}, {}
    for trial in asked:
        try:
            found[arm_key(trial)] = predictor.seconds(trial)
        except FlyweightError as error:
            failed[arm_key(trial)] = error.what
    return found, failed, predictor.pacer.clock.share


def _machine(device: str) -> str:
    """Return the name of the processor, or of the GPU."""
    if is_cpu(device):
        return str(environment()["cpu"])
    import torch

    return torch.cuda.get_device_name(device)


def _written(
    known: dict[str, Any], found: dict[str, Seconds], failed: dict[str, str], took: float, share: float, place: Place
) -> dict[str, Any]:
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    probe = {"date": date, "machine": _machine(place.device), "arms": len(found), "seconds": round(took, 1)}
    probe |= {"share": round(share, 3)}
    content = {
        "arms": {**found, **known["arms"]},  # what was said first stays
        "unknown": failed,
        "probes": [*known["probes"], probe],
    }
    write_json(place.out / PREDICTED, content)
    return content
