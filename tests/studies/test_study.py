"""A study runs its arms at equal cost, continues where it stopped, and answers from paired statistics."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from tests.studies.small import place_with, small_mnist
from tests.workers import workers_of

from flyweight.cli import run as cli
from flyweight.errors import RecipeError, TrainingError
from flyweight.measure.statistics import could_find
from flyweight.models.zoo import find
from flyweight.report.study import ALL, StudyFacts, markdown
from flyweight.studies.analyse import analyse
from flyweight.studies.schedule import Running, TrialDone, TrialFailed, run_trials
from flyweight.studies.study import Scale, Study, Trial, load_study, recipe_of, trials
from flyweight.studies.trial import Place

REPORTS = Path(__file__).parents[2] / "docs/studies"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("tiny_cnn")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("study")
    small_mnist(folder / "data")
    return Place(folder / "data", folder / "out")


@pytest.fixture(scope="module")
def smoke(study: Study) -> Scale:
    return study.scales["smoke"]


@pytest.fixture(scope="module")
def done(study: Study, smoke: Scale, place: Place) -> list[Trial]:
    """Every arm, run by two workers on a few real images."""
    order = trials(study, smoke)
    events = list(run_trials(study, smoke, order, place, jobs=2))
    assert not [event for event in events if isinstance(event, TrialFailed)]
    return order


def test_every_arm_of_every_scale_makes_a_valid_recipe_of_a_known_network(study: Study) -> None:
    for scale in study.scales.values():
        for trial in trials(study, scale):
            recipe = recipe_of(study, scale, trial)
            assert find(recipe.model.name)
            assert recipe.data.val_fold == trial.seed == recipe.seed


def test_the_full_scale_has_five_seeds_the_cpu_scale_three_and_both_all_data_sets(study: Study) -> None:
    sets = {"mnist", "fashion-mnist", "cifar10"}
    for name, seeds in (("full", 5), ("cpu", 3)):
        order = trials(study, study.scales[name])
        assert {trial.seed for trial in order} == set(range(seeds))
        assert {trial.dataset for trial in order} == sets
        assert {trial.arm for trial in order} == set(study.arms)


def test_an_arm_brings_what_it_needs_and_in_that_order(study: Study) -> None:
    order = trials(study, study.scales["smoke"], arms=["without_unfreezing"])
    assert [trial.arm for trial in order] == ["sub_models", "as_published", "without_unfreezing"]


@pytest.mark.parametrize(
    ("datasets", "arms", "said"), [(["minst"], [], "data set 'minst'"), ([], ["sngle"], "arm 'sngle'")]
)
def test_a_name_that_is_not_there_is_refused(study: Study, datasets: list[str], arms: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        trials(study, study.scales["smoke"], datasets=datasets, arms=arms)


def test_all_arms_that_are_compared_cost_the_same_within_two_percent(
    study: Study, place: Place, done: list[Trial]
) -> None:
    costs = {trial.arm: place.result(trial)["train_macs"] for trial in done}  # type: ignore[index]
    for question in study.questions:
        assert costs[question.first[0]] == pytest.approx(costs[question.second[0]], rel=0.02), question.ask


def test_the_arm_as_published_has_the_published_parameters(place: Place, done: list[Trial]) -> None:
    found = place.result(next(trial for trial in done if trial.arm == "as_published"))
    assert found is not None
    assert found["params"] == 14_862


def test_what_is_finished_is_not_run_again(study: Study, smoke: Scale, place: Place, done: list[Trial]) -> None:
    events = list(run_trials(study, smoke, done, place, jobs=2))
    assert all(isinstance(event, TrialDone) and event.again for event in events)


def test_each_trial_opens_the_test_part_once_and_says_so(place: Place, done: list[Trial]) -> None:
    lines = (place.out / "test-openings.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["why"] for line in lines) == sorted(f"tiny_cnn {trial.name}" for trial in done)


def test_a_study_that_is_stopped_continues_and_repeats_nothing(
    study: Study, smoke: Scale, place: Place, done: list[Trial], tmp_path: Path
) -> None:
    other = Place(place.data, tmp_path)
    order = trials(study, smoke, arms=["as_published"])
    events = run_trials(study, smoke, order, other, jobs=1)
    first = next(event for event in events if isinstance(event, TrialDone))
    events.close()
    before = (other.of(first.trial) / "result.json").stat().st_mtime_ns
    again = [event for event in run_trials(study, smoke, order, other, jobs=1) if not isinstance(event, Running)]
    assert [event.again for event in again if isinstance(event, TrialDone)] == [True, False]
    assert (other.of(first.trial) / "result.json").stat().st_mtime_ns == before
    for trial in order:  # and the bits are those of the study that was never stopped
        assert np.array_equal(other.correct(trial), place.correct(trial))


def test_a_worker_that_dies_between_two_trials_ends_the_study_with_what_to_do(
    study: Study, smoke: Scale, tmp_path: Path, place: Place
) -> None:
    order = trials(study, smoke, arms=["as_published"])
    events = run_trials(study, smoke, order, Place(place.data, tmp_path), jobs=1)
    next(event for event in events if isinstance(event, TrialDone))
    (worker,) = workers_of(os.getpid())
    worker.kill()
    worker.wait(60)
    time.sleep(1)  # the pool learns of it in a thread of its own
    with pytest.raises(TrainingError, match="a worker process died") as raised:
        list(events)
    assert "run the same command again" in raised.value.do
    assert len(list(run_trials(study, smoke, order, Place(place.data, tmp_path), jobs=1))) >= len(order)


def test_what_needs_an_arm_that_diverged_is_said_and_is_not_waited_for(
    study: Study, smoke: Scale, tmp_path: Path
) -> None:
    place, order = Place(tmp_path, tmp_path), trials(study, smoke, arms=["as_published"])
    assert [trial.arm for trial in order] == ["sub_models", "as_published"]
    place.of(order[0]).mkdir(parents=True)
    lost = {"diverged": {"epoch": 3, "why": "it rose"}, "train_seconds": 1.0}
    (place.of(order[0]) / "result.json").write_text(json.dumps(lost))
    facts = analyse(study, "smoke", order, place)
    assert facts.missing == ()
    assert facts.diverged[order[0].name] == "it rose"
    assert facts.diverged[order[1].name] == f"it needs {order[0].name}, which is lost"


def test_one_seed_gives_no_verdict(study: Study, place: Place, done: list[Trial]) -> None:
    facts = analyse(study, "smoke", done, place)
    assert {verdict.answer for verdict in facts.verdicts} == {"too few seeds"}
    assert facts.datasets[0].published is not None
    assert facts.missing == ()


def test_verdicts_follow_the_scores(study: Study, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = random.random((3, 4000))
    scores = dict.fromkeys(study.arms, base < 0.9)
    scores |= {"as_published": base < 0.95, "without_unfreezing": base < 0.99}
    made, order = place_with(tmp_path, scores)
    facts = analyse(study, "cpu", order, made)
    answers = {verdict.question: verdict for verdict in facts.verdicts}
    assert answers["Does dual input help?"].answer == "helps"
    assert answers["Does progressive unfreezing help?"].answer == "hurts"
    assert answers["Does our net beat the published one?"].answer == "hurts"
    dual = answers["Does dual input help?"]
    assert dual.difference.value == pytest.approx(0.05, abs=0.01)
    assert dual.difference.low is not None
    assert dual.difference.low > 0
    assert all(counts.only_second == 0 < counts.only_first for counts in dual.mcnemar)
    assert dual.p_holm >= dual.p
    same = answers["Is it better to merge probabilities than logits?"]
    assert (same.first, same.second) == ("merged_probs", "as_published")


def test_no_answer_stands_beside_a_smaller_difference_that_could_be_found(study: Study, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    scores = {name: rng.random((3, 4000)) < 0.9 + rng.normal(0, 0.01, (3, 1)) for name in study.arms}
    place, order = place_with(tmp_path, scores)
    found = analyse(study, "cpu", order, place).verdicts
    assert len(found) == len(study.questions) > 4
    for verdict in found:
        half = (verdict.difference.high or 0) - (verdict.difference.value or 0)
        error = half / student.ppf(0.975, verdict.df)
        assert verdict.detectable == pytest.approx(could_find(error, verdict.df, tests=len(found)))


@pytest.mark.parametrize("report", sorted(REPORTS.glob("*.json")), ids=lambda path: path.stem)
def test_no_shipped_answer_calls_none_what_it_could_have_found(report: Path) -> None:
    for verdict in StudyFacts.model_validate_json(report.read_bytes()).verdicts:
        if verdict.answer == "no difference":
            assert abs(verdict.difference.value or 0) <= verdict.detectable, (verdict.question, verdict.dataset)


def test_equal_scores_are_no_difference(study: Study, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    made, order = place_with(tmp_path, {arm: random.random((3, 4000)) < 0.9 for arm in study.arms})
    assert {verdict.answer for verdict in analyse(study, "cpu", order, made).verdicts} == {"no difference"}


def test_the_command_runs_reports_and_says_what_is_missing(
    place: Place, done: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "tiny_cnn", "--data", str(place.data), "--scale", "smoke", "--out", str(place.out)]
    assert cli([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "study"
    assert {verdict["answer"] for verdict in facts["verdicts"]} == {"too few seeds"}
    assert cli(words) == 0
    shown = capsys.readouterr().out
    assert "as published" in shown
    assert "report  " in shown
    assert (place.out / "report.html").is_file()
    assert cli(["report", str(place.out)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny_cn"], "there is no study 'tiny_cn'"),
        (["tiny_cnn", "--scale", "huge"], "there is no scale 'huge'"),
        (["tiny_cnn", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_bad_words_end_in_three_lines(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["reproduce", *words]) == 1
    assert said in capsys.readouterr().err


def test_a_data_set_that_is_not_there_fails_that_trial_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["--scale", "smoke", "--arm", "sub_models", "--data", str(empty), "--out", str(tmp_path / "out")]
    assert cli(["reproduce", "tiny_cnn", *words]) == 1
    assert str(empty) in capsys.readouterr().err


def test_the_shipped_report_of_the_cpu_scale_is_complete_and_costs_are_equal() -> None:
    file = Path(__file__).parents[2] / "docs/studies/tiny_cnn-cpu.json"
    facts = StudyFacts.model_validate_json(file.read_bytes())
    assert facts.missing == ()
    assert len(facts.datasets) == 3
    counted = {data.name: data.published.measured_params for data in facts.datasets if data.published}
    assert counted == {"mnist": 14_862, "fashion-mnist": 14_862, "cifar10": 19_622}
    for verdict in facts.verdicts:
        assert verdict.seeds >= 3
        assert verdict.cost_ratio == pytest.approx(1.0, abs=0.02)
    asked = {(verdict.question, verdict.dataset) for verdict in facts.verdicts}
    assert asked == {(q.ask, d) for q in load_study("tiny_cnn").questions for d in (ALL, *counted)}
    for line in markdown(facts).splitlines():
        assert line in (file.parent.with_suffix(".md")).read_text("utf-8").splitlines()


def test_a_folder_of_another_scale_is_refused_and_not_mixed(
    place: Place, done: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "tiny_cnn", "--data", str(place.data), "--scale", "cpu", "--out", str(place.out)]
    assert cli(words) == 1
    assert "holds a study that differs in: scale" in capsys.readouterr().err


def test_more_seeds_than_folds_are_refused_before_anything_runs(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["reproduce", "tiny_cnn", "--data", str(place.data), "--scale", "smoke", "--seeds", "6"]) == 1
    assert "--seeds 6, but there are 5 folds" in capsys.readouterr().err
