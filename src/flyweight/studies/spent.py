"""What a study has cost: core-minutes of training, and energy where the machine tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flyweight.files import write_text
from flyweight.studies.trial import Place

ENERGY = "energy.jsonl"


def add_energy(place: Place, joules: float | None, seconds: float) -> None:
    """Write down what one call took: joules of all processor packages (None: the machine does not tell), seconds."""
    file = place.out / ENERGY
    before = file.read_text("utf-8") if file.is_file() else ""
    write_text(file, before + json.dumps({"joules": joules, "seconds": round(seconds, 1)}) + "\n")


def spent(place: Place, results: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the cost of a study in words, for its conditions."""
    minutes = sum(result["train_seconds"] for result in results) / 60
    found = {"training cost": f"{minutes:,.1f} core-minutes over all runs, one thread each"}
    file = place.out / ENERGY
    calls = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    known = [call["joules"] for call in calls if call["joules"] is not None]
    if known:
        note = "" if len(known) == len(calls) else f" ({len(known)} of {len(calls)} calls)"
        found["energy"] = f"{sum(known) / 1e3:,.1f} kJ of the whole processor, whatever ran on it{note}"
    elif calls:
        found["energy"] = "this machine does not tell"
    return found
