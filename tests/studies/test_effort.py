"""What an arm tried before it was trained is part of its cost, and what came out the same is not compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.studies.small import made_up, place_with

from flyweight.report.study import StudyFacts, markdown, render_study
from flyweight.studies.analyse import analyse
from flyweight.studies.schedule import run_trials
from flyweight.studies.study import Study, load_study, trials
from flyweight.studies.trial import RESULT, RUN, TRIES, Place

TWO_TRIES = [{"change": {}, "image_passes": 300, "val_accuracy": 0.5, "seconds": 1.0, "train_macs": 5.0}] * 2


def tuned(data: Path, *tries: dict[str, Any]) -> Study:
    """Return a study of one recipe as it stands and after a search of its own."""
    recipe = {
        "name": "x", "epochs": 1, "batch_size": 32, "model": {"name": "tiny_cnn_4"}, "data": {"image_size": 8},
        "threads": 1, "precision": "fp32", "channels_last": True, "compile": False,
    }  # fmt: skip
    return Study.model_validate({
        "name": "effort", "title": "Effort", "about": "", "part": "val", "reference": "plain", "base": recipe,
        "scales": {"own": {"seeds": 1}},
        "datasets": {"two": {"title": "Two", "source": str(data), "data": {}}},
        "arms": {
            "plain": {"title": "As it stands", "recipe": {}},
            "tuned": {"title": "Tuned", "recipe": {}, "tune": {"tries": [{}, *tries], "epochs": 1}},
        },
        "questions": [{"ask": "Is tuning worth it?", "short": "tuning", "first": "tuned", "second": "plain"}],
    })  # fmt: skip


def ran(tmp_path: Path, *tries: dict[str, Any]) -> tuple[StudyFacts, dict[str, Any], Place]:
    draw = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = draw.integers(0, 120, (400, 8, 8, 3)) + 90 * labels[:, None, None, None]
    np.savez(tmp_path / "two.npz", images=images.astype(np.uint8), labels=labels)
    study, place = tuned(tmp_path / "two.npz", *tries), Place(Path(), tmp_path / "out")
    order = trials(study, study.scales["own"])
    list(run_trials(study, study.scales["own"], order, place, jobs=1))
    results = {trial.arm: place.result(trial) for trial in order}
    assert None not in results.values()
    return analyse(study, "own", order, place), results, place


@pytest.fixture(scope="module")
def useless(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFacts, dict[str, Any], Place]:
    """A search whose other try is worse than the recipe as it stands."""
    return ran(tmp_path_factory.mktemp("effort"), {"optim": {"lr": 1e-9}})


def test_the_tries_of_an_arm_are_in_its_training_cost(useless: tuple[StudyFacts, dict[str, Any], Place]) -> None:
    facts, results, place = useless
    folder = place.out / "trials" / "two" / "tuned" / "seed0"
    histories = [folder / RUN, *(folder / TRIES).iterdir()]
    rows = [json.loads(line) for run in histories for line in (run / "history.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert results["tuned"]["train_macs"] == pytest.approx(sum(row["train_macs"] for row in rows))
    assert results["tuned"]["train_macs"] == pytest.approx(3 * results["plain"]["train_macs"])
    assert facts.verdicts[0].cost_ratio == pytest.approx(3)
    assert facts.datasets[0].arms[1].cost_ratio == pytest.approx(3)


def test_two_arms_that_trained_the_same_recipe_are_not_compared(
    useless: tuple[StudyFacts, dict[str, Any], Place],
) -> None:
    (verdict,) = useless[0].verdicts
    assert (verdict.answer, verdict.difference.low, verdict.detectable) == ("same recipe", None, None)
    assert "**same recipe** on both sides" in markdown(useless[0])
    assert "<b>same recipe</b>" in render_study(useless[0])


def test_the_effort_of_arms_that_tried_nothing_is_told_beside_that_of_those_that_did(
    useless: tuple[StudyFacts, dict[str, Any], Place],
) -> None:
    passes = useless[1]["plain"]["image_passes"]
    told = f"UNEQUAL: plain 1 × 0 + {passes:,}; tuned 2 × {passes:,} + {passes:,}."
    assert told in useless[0].effort
    assert told in render_study(useless[0])


@pytest.mark.parametrize(("first", "answer"), [("kept", "same recipe"), ("other", "no difference")])
def test_same_scores_are_the_same_recipe_only_where_the_recipe_was_the_same(
    first: str, answer: str, tmp_path: Path
) -> None:
    study = load_study("tiny_cnn")
    place, order = place_with(tmp_path, dict.fromkeys(study.arms, np.random.default_rng(0).random((3, 500)) < 0.9))
    question = next(one for one in study.questions if len(one.arms) == 2)
    marked(place, lambda result: {"trained_as": first if result["arm"] in question.first else "kept"})
    found = {verdict.question: verdict for verdict in analyse(study, "cpu", order, place).verdicts}
    assert found[question.ask].answer == answer


def marked(place: Place, more: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for file in (place.out / "trials").rglob(RESULT):
        result = json.loads(file.read_text())
        file.write_text(json.dumps({**result, **more(result)}))


def test_one_arm_that_was_tuned_makes_the_effort_of_a_comparison_unequal(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_4": [0.8] * 3, "tiny_cnn_8": [0.9] * 3})
    marked(place, lambda result: {"tuning": TWO_TRIES if result["arm"] == "tiny_cnn_8" else [], "image_passes": 1600})
    effort = analyse(study, "own", trials(study, study.scales["own"]), place).effort
    assert effort.endswith("UNEQUAL: tiny_cnn_4 1 × 0 + 1,600; tiny_cnn_8 2 × 300 + 1,000.")


def test_tries_that_an_older_version_did_not_count_are_named(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_4": [0.8] * 3, "tiny_cnn_8": [0.9] * 3})
    uncounted = [{key: value for key, value in one.items() if key != "train_macs"} for one in TWO_TRIES]
    marked(place, lambda _: {"tuning": uncounted, "image_passes": 1600})
    assert "leaves out tries" in analyse(study, "own", trials(study, study.scales["own"]), place).effort
