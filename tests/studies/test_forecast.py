"""What a study will cost is said before it runs, kept, and set beside what it took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.studies.small import small_mnist

from flyweight.cli import run
from flyweight.cli.studying import in_words
from flyweight.errors import RecipeError
from flyweight.report.study import StudyFacts, render_study
from flyweight.studies.analyse import analyse
from flyweight.studies.compared import comparison
from flyweight.studies.forecast import PREDICTED, ArmForecast, Forecast, foresee
from flyweight.studies.predict import Predictor
from flyweight.studies.schedule import Running, TrialDone, run_trials
from flyweight.studies.study import Arm, Study, Subset, Tune, load_study, trials
from flyweight.studies.trial import Place
from flyweight.train import pace
from flyweight.train.pace import SECONDS, Pace, Pacer, legs
from flyweight.train.recipe import load_recipe


def small_study(seeds: int = 2) -> Study:
    recipe = load_recipe("compare").with_settings(["epochs=2", "epoch_images=128", "batch_size=32"])
    return comparison(["sample"], ["tiny_cnn_4", "tiny_cnn_8"], recipe, seeds=seeds, sizes=[Subset(per_class=60)])


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def fixed_pace(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """An image takes 2 ms forward and backward, 1 ms forward, a step 32 ms, and a 100th of a ms to load."""
    monkeypatch.setattr(Pacer, "_pace", lambda *_: Pace(passes=0.002, answer=0.001, step=0.032))
    monkeypatch.setattr(Pacer, "_load", lambda *_: 0.00001)


def test_the_seconds_of_a_run_are_those_of_its_images_steps_and_answers(tmp_path: Path, fixed_pace: None) -> None:
    study = small_study()
    trial = trials(study, study.scales["own"])[0]
    predictor = Predictor(study, study.scales["own"], Place(Path(), tmp_path))
    found = predictor.seconds(trial)
    (leg,) = legs(*predictor._made(trial))
    assert (leg.images, leg.epochs) == (2 * 128, 2)
    assert found["loading"] == pytest.approx(256 * 0.00001)
    assert found["computing"] == pytest.approx(256 * (0.002 + 0.032 / 32))
    assert found["validating"] == pytest.approx(2 * leg.val_images * 0.001)


def test_the_tries_of_an_arm_are_part_of_its_seconds(tmp_path: Path, fixed_pace: None) -> None:
    study = small_study()
    tune = Tune(tries=({}, {"optim": {"lr": 0.1}}, {"optim": {"lr": 0.2}}), epochs=1)
    arms = {name: Arm(**{**arm.model_dump(by_alias=True), "tune": tune}) for name, arm in study.arms.items()}
    tuned = study.model_copy(update={"arms": arms})
    place, size = Place(Path(), tmp_path), study.scales["own"]
    trial = trials(study, size)[0]
    plain, more = (Predictor(one, size, place).seconds(trial) for one in (study, tuned))
    assert more["computing"] == pytest.approx(plain["computing"] * (2 + 3) / 2)


def test_an_arm_of_equal_cost_is_foreseen_as_long_as_that_makes_it(tmp_path: Path, one_thread: None) -> None:
    small_mnist(tmp_path / "data")
    study = load_study("tiny_cnn")
    size = study.scales["smoke"]
    predictor = Predictor(study, size, Place(tmp_path / "data", tmp_path / "out"))
    chosen = {trial.arm: trial for trial in trials(study, size)}
    assert predictor.macs(chosen["single"]) == pytest.approx(predictor.macs(chosen["as_published"]), rel=0.02)
    layers = [leg.stage.layers for leg in legs(*predictor._made(chosen["as_published"]))]
    assert layers[0] == 1  # the head alone first
    assert layers[-1] is None


def test_networks_are_timed_once_for_each_way_of_training_and_augmentations_once_each(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study()
    arms = dict(study.arms)
    for name, change in (("flip", {"augment": {"vflip": 0.5}}), ("adamw", {"optim": {"name": "adamw", "lr": 0.001}})):
        arms[name] = Arm(title=name, recipe={**arms["tiny_cnn_4"].recipe, **change})
    study = study.model_copy(update={"arms": arms})
    monkeypatch.setattr(pace, "ENOUGH_SECONDS", 0.01)
    predictor = Predictor(study, study.scales["own"], Place(Path(), tmp_path))
    for trial in trials(study, study.scales["own"]):
        assert min(predictor.seconds(trial).values()) > 0
    assert len(predictor.pacer._paces) == 3
    assert len(predictor.pacer._loads) == 2
    assert 0 < predictor.pacer.clock.share <= 1


def test_what_is_predicted_is_kept_and_stands_beside_what_was_measured(tmp_path: Path) -> None:
    study, place = small_study(), Place(Path(), tmp_path)
    size = study.scales["own"]
    order = trials(study, size)
    forecast = foresee(study, size, order, place)
    assert forecast.runs == 4
    assert forecast.unknown == {}
    assert "core-minutes for 4 runs" in "\n".join(in_words(forecast, jobs=1))
    kept = (tmp_path / PREDICTED).read_text()
    for event in run_trials(study, size, order, place, jobs=1):
        if isinstance(event, TrialDone):
            break
    again = foresee(study, size, order, place)
    assert (tmp_path / PREDICTED).read_text() == kept  # nothing was timed again
    assert again.probes_seconds == 0
    assert [(arm.arm, arm.runs, arm.measured) for arm in again.arms] == [
        ("tiny_cnn_4", 1, True), ("tiny_cnn_8", 2, False),
    ]  # fmt: skip
    facts = analyse(study, "own", order, place)
    cost = facts.cost
    assert cost is not None
    assert (cost.runs, cost.predicted_runs, cost.measured_runs, cost.both_runs) == (4, 4, 1, 1)
    own = json.loads((place.of(order[0]) / "result.json").read_text())["own_seconds"]
    assert cost.measured.total == pytest.approx(sum(own[key] for key in SECONDS))
    assert cost.measured.core == own["core"]
    assert min(own.values()) > 0
    assert cost.predicted.total == pytest.approx(sum(one.runs * one.total for one in forecast.arms))
    page = render_study(facts)
    assert "predicted, the whole study" in page
    assert "nothing has run yet" in page  # energy is written by the command


def test_what_cannot_be_built_is_said_and_the_rest_is_predicted(tmp_path: Path) -> None:
    study = small_study(seeds=1)
    arms = {**study.arms, "broken": Arm(title="broken", recipe={"model": {"name": "tiny_cnn_8", "args": {"odd": 1}}})}
    study = study.model_copy(update={"arms": arms})
    forecast = foresee(study, study.scales["own"], trials(study, study.scales["own"]), Place(Path(), tmp_path))
    assert forecast.runs == 2
    assert "odd" in forecast.unknown["sample/broken"]


def test_predict_prints_and_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_mnist(tmp_path / "data")
    words = ["reproduce", "tiny_cnn", "--scale", "smoke", "--arm", "single", "--predict"]
    assert run([*words, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "mnist/as_published" in printed
    assert "core-minutes for 3 runs" in printed
    assert not (tmp_path / "out" / "trials").exists()


def test_a_study_of_an_older_version_says_its_seconds_as_a_sum() -> None:
    file = Path(__file__).parents[2] / "docs/studies/tiny_cnn-cpu.json"
    assert StudyFacts.model_validate_json(file.read_bytes()).cost is None


def test_an_hour_or_more_is_told_in_hours_and_in_minutes() -> None:
    each = {"loading": 600.0, "computing": 6000.0, "validating": 600.0}
    lines = in_words(Forecast((ArmForecast("sample", "tiny_cnn_4", 3, each, measured=False),)), jobs=2)
    split = "0.50 loading, 5.00 computing, 0.50 validating"
    assert lines[0] == f"predicted: 6.00 core-hours (360 core-minutes) for 3 runs: {split}"
    assert lines[1].startswith("  3.00 hours with 2 at a time")


def test_the_device_that_trains_is_asked_for_and_one_folder_has_one_kind(tmp_path: Path) -> None:
    study, place = small_study(seeds=1), Place(Path(), tmp_path, "cpu:0")  # the processor, by another name
    size = study.scales["own"]
    order = trials(study, size)
    assert any(isinstance(event, TrialDone) for event in run_trials(study, size, order[:1], place, jobs=1))
    assert load_recipe(place.of(order[0]) / "run" / "recipe.resolved.yaml").settled().device == "cpu:0"
    with pytest.raises(RecipeError, match="differs in: device"):
        foresee(study, size, order, Place(Path(), tmp_path))


def test_what_a_gpu_took_is_said_in_its_hours(tmp_path: Path) -> None:
    """Written down as a GPU would leave it: there is none here."""
    study, place = small_study(seeds=1), Place(Path(), tmp_path, "cuda")
    size = study.scales["own"]
    order = trials(study, size)
    for event in run_trials(study, size, order, Place(Path(), tmp_path), jobs=1):
        assert isinstance(event, TrialDone | Running)
    facts = analyse(study, "own", order, place)
    cost = facts.cost
    assert cost is not None
    assert (cost.unit, cost.spent(cost.measured)) == ("GPU", cost.measured.total)
    cost_said = facts.conditions.details["training cost"]
    assert "GPU-minutes over all runs" in cost_said
    assert cost_said.endswith("by the clock, trained on cuda")
    page = render_study(facts)
    assert "GPU-hours" in page
    assert "one thread a run, no GPU" not in page
    each = {"loading": 60.0, "computing": 120.0, "validating": 0.0, "core": 0.0}
    lines = in_words(Forecast((ArmForecast("sample", "tiny_cnn_4", 2, each, measured=False),), device="cuda"), jobs=1)
    assert lines[0] == "predicted: 6.00 GPU-minutes for 2 runs: 2.00 loading, 4.00 computing, 0.00 validating"
    assert "as long on cuda with several at a time" in lines[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "words",
    [
        ["reproduce", "tiny_cnn", "--scale", "smoke"],
        ["compare", "sample", "--models", "tiny_cnn_4,tiny_cnn_8"],
        ["tune", "sample"],
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_and_nothing_is_begun(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_mnist(tmp_path / "data")
    more = ["--data", str(tmp_path / "data")] if words[0] == "reproduce" else []
    assert run([*words, *more, "--device", "cuda", "--out", str(tmp_path / "out")]) == 1
    assert "torch cannot use the device 'cuda'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
