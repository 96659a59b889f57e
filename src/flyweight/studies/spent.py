"""What a study has cost: hours of cores or GPU beside those predicted, and energy where the machine tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyweight.report.cost import ArmCostFacts, CostFacts, SecondsFacts
from flyweight.runtime.energy import energy_of
from flyweight.runtime.environment import is_cpu
from flyweight.studies.forecast import arm_key, measured, read_predicted
from flyweight.studies.study import Study, Trial
from flyweight.studies.trial import Place
from flyweight.train.pace import CORE, SECONDS, total_seconds


def costs(study: Study, wanted: Sequence[Trial], results: Mapping[Trial, dict[str, Any]], place: Place) -> CostFacts:
    """Return what the wanted trials were predicted to take, and what the finished ones took."""
    known = read_predicted(place)
    predicted, went = known["arms"], measured(results)
    split = {trial: result["own_seconds"] for trial, result in results.items() if "own_seconds" in result}
    both = [trial for trial in split if arm_key(trial) in predicted and "diverged" not in results[trial]]
    joules, calls = energy_of(place.out)
    return CostFacts(
        device=place.device,
        runs=len(wanted),
        predicted_runs=sum(arm_key(trial) in predicted for trial in wanted),
        predicted=_facts(total_seconds(predicted[arm_key(t)] for t in wanted if arm_key(t) in predicted)),
        measured_runs=len(split),
        measured=_facts(total_seconds(split.values())),
        unsplit_runs=len(results) - len(split),
        unsplit_seconds=sum(result["train_seconds"] for trial, result in results.items() if trial not in split),
        both_runs=len(both),
        both_predicted=_facts(total_seconds(predicted[arm_key(trial)] for trial in both)),
        both_measured=_facts(total_seconds(split[trial] for trial in both)),
        probes_seconds=sum(probe["seconds"] for probe in known["probes"]),
        machines=tuple(dict.fromkeys(probe["machine"] for probe in known["probes"])),
        joules=joules,
        energy_calls=calls,
        arms=tuple(
            ArmCostFacts(
                dataset=name,
                arm=arm,
                title=study.arms[arm].title,
                runs=sum((trial.dataset, trial.arm) == (name, arm) for trial in wanted),
                predicted=_facts(predicted[key]) if (key := f"{name}/{arm}") in predicted else None,
                finished=sum((trial.dataset, trial.arm) == (name, arm) for trial in split),
                measured=_facts(went[key]) if key in went else None,
            )
            for name, arm in dict.fromkeys((trial.dataset, trial.arm) for trial in sorted(wanted))
            if f"{name}/{arm}" in predicted or f"{name}/{arm}" in went
        ),
    )


def _facts(seconds: Mapping[str, float]) -> SecondsFacts:
    return SecondsFacts(**{key: seconds.get(key, 0.0) for key in (*SECONDS, CORE)})


def spent(cost: CostFacts) -> dict[str, str]:
    """Return the cost of a study in words, for its conditions."""
    clock, own = cost.measured.total + cost.unsplit_seconds, cost.spent(cost.measured)
    on = "one thread each; no GPU" if is_cpu(cost.device) else f"trained on {cost.device}"
    minutes = f"{clock / 60:,.1f} minutes by the clock over all runs"
    if own and not cost.unsplit_seconds:  # else what other programs took is not known apart
        minutes = f"{own / 60:,.1f} {cost.unit}-minutes over all runs, {clock / 60:,.1f} by the clock"
    found = {"training cost": f"{minutes}, {on}"}
    known, calls = cost.energy_calls
    if cost.joules is not None:
        note = "" if known == calls else f" ({known} of {calls} calls)"
        found["energy"] = f"{cost.joules / 1e3:,.1f} kJ of the whole processor, whatever ran on it{note}"
    elif calls:
        found["energy"] = "this machine does not tell"
    return found
