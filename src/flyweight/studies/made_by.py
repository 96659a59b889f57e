"""Which code the runs of a study's folder were made by: one for all of them, or the next call ends and says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from flyweight.errors import RecipeError
from flyweight.files import write_json
from flyweight.runtime.code import code_facts
from flyweight.studies.study import Study, Trial
from flyweight.studies.trial import Place

CODE = "code.json"
DECIDING = ("studies.study", "studies.trial", "measure.accuracy")  # beside what decides any training


def check_code(study: Study, order: Sequence[Trial], place: Place) -> None:
    """Write down in an empty folder what code its runs are made by, or check that those to come are made by the same.

    A folder of an older version, which wrote nothing down, is gone on with: its report says that the code is not known.
    So is one with nothing left to run: reading results mixes nothing.

    Raises:
        RecipeError: The runs that are there were made by other code, and some are left to run.
    """
    here, file = code_facts(DECIDING), place.out / CODE
    begun = any((place.out / "trials").glob("*/*/*/*"))
    if not begun:
        write_json(file, here)
        return
    there = _read(place)
    differ = [key for key in sorted({*here, *there}) if here.get(key) != there.get(key)] if there else []
    if differ and any_left(study, order, place):
        shown = "; ".join(f"{key}: {there.get(key)} there, {here.get(key)} here" for key in differ)
        raise RecipeError(
            f"the runs in {place.out} were made by other code than there is now ({shown})",
            do=f"go on with the version that made them, or choose another --out; to go on all the same, delete {CODE} "
            "there: the report then says that the code is not known",
            more="docs/studies.md#going-on",
        )


def any_left(study: Study, order: Sequence[Trial], place: Place) -> bool:
    """True where a trial is still to be run: it has no result, and none that it needs has diverged."""
    lost: set[Trial] = set()
    for trial in order:  # what a trial needs stands before it
        result = place.result(trial)
        needs = {Trial(trial.seed, trial.dataset, name) for name in study.arms[trial.arm].needs}
        if needs & lost or "diverged" in (result or ()):
            lost.add(trial)
        elif result is None:
            return True
    return False


def made_by(place: Place) -> str:
    """Return in words what code a folder's runs were made by, for the conditions of its report."""
    facts = _read(place)
    if not facts:
        return "not known: begun by a version that did not write it down, or gone on with by other code"
    versions = [
        f"{key.removeprefix('version of ')} {value}" for key, value in facts.items() if key.startswith("version")
    ]
    short = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{short}, the same for every run, with {', '.join(versions)} ({CODE})"


def _read(place: Place) -> dict[str, Any]:
    file = place.out / CODE
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found
