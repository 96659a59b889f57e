"""The runs of one study are made by one code, and its report says which, or that it is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.studies.small import made_up

from flyweight.errors import RecipeError
from flyweight.studies.analyse import analyse
from flyweight.studies.forecast import foresee
from flyweight.studies.made_by import CODE, check_code
from flyweight.studies.schedule import run_trials
from flyweight.studies.study import Study, Trial, trials
from flyweight.studies.trial import RESULT, Place


def folder(tmp_path: Path, *, code: dict[str, str] | None) -> tuple[Study, Place, list[Trial]]:
    """Return a study with one trial left to run, its folder begun by the code that is here, changed by `code`."""
    study, place = made_up(tmp_path, {"tiny_cnn_4": [0.8] * 3, "tiny_cnn_8": [0.9] * 3})
    order = trials(study, study.scales["own"])
    if code is not None:
        (tmp_path / "empty").mkdir()
        check_code(study, order, Place(tmp_path, tmp_path / "empty"))
        here = json.loads((tmp_path / "empty" / CODE).read_text())
        (tmp_path / CODE).write_text(json.dumps({**here, **code}))
    (place.of(order[-1]) / RESULT).unlink()
    return study, place, order


def told(study: Study, order: list[Trial], place: Place) -> str:
    return str(analyse(study, "own", order, place).conditions.details["code"])


OTHER = {"code of flyweight.train": "0123456789abcdef", "version of pillow": "1.0"}


@pytest.mark.parametrize("how", ["run", "foresee"])
def test_runs_by_other_code_are_not_gone_on_with(how: str, tmp_path: Path) -> None:
    study, place, order = folder(tmp_path, code=OTHER)
    size = study.scales["own"]
    begin = {
        "run": lambda: next(run_trials(study, size, order, place, jobs=1)),
        "foresee": lambda: foresee(study, size, order, place),
    }
    with pytest.raises(RecipeError) as raised:
        begin[how]()
    lines = str(raised.value)
    assert "code of flyweight.train: 0123456789abcdef there" in lines
    assert "version of pillow: 1.0 there" in lines
    assert "flyweight.data" not in lines
    assert f"delete {CODE}" in lines


def test_runs_by_the_same_code_are_gone_on_with_and_the_report_names_it(tmp_path: Path) -> None:
    study, place, order = folder(tmp_path, code={})
    check_code(study, order, place)
    assert "the same for every run, with torch " in told(study, order, place)


def test_an_older_folder_opens_and_its_report_says_that_the_code_is_not_known(tmp_path: Path) -> None:
    study, place, order = folder(tmp_path, code=None)
    check_code(study, order, place)
    assert not (tmp_path / CODE).exists()
    assert told(study, order, place).startswith("not known")


def test_results_by_other_code_can_be_read_where_nothing_is_left_to_run(tmp_path: Path) -> None:
    study, place, order = folder(tmp_path, code=OTHER)
    check_code(study, order[:-1], place)
    assert json.loads((tmp_path / CODE).read_text())["version of pillow"] == "1.0"


def test_what_needs_a_lost_trial_is_not_left_to_run(tmp_path: Path) -> None:
    study, place, order = folder(tmp_path, code=OTHER)
    last = order[-1]
    before = next(trial for trial in order if trial.seed == last.seed and trial.arm != last.arm)
    arm = study.arms[last.arm].model_copy(update={"from_arm": before.arm})
    study = study.model_copy(update={"arms": {**study.arms, last.arm: arm}})
    with pytest.raises(RecipeError):
        check_code(study, order, place)
    (place.of(before) / RESULT).write_text(json.dumps({"diverged": {"epoch": 1, "why": "it rose"}}))
    check_code(study, order, place)


def test_an_empty_folder_takes_the_code_that_is_here(tmp_path: Path) -> None:
    study, _, order = folder(tmp_path, code=None)
    place = Place(tmp_path, tmp_path / "new")
    place.out.mkdir()
    (place.out / CODE).write_text(json.dumps(OTHER))
    check_code(study, order, place)
    assert json.loads((place.out / CODE).read_text())["version of pillow"] != "1.0"
