"""Searches, whole: on small images, by the command line, stopped and gone on with."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from flyweight.cli import run
from flyweight.report.isolation import by_choice
from flyweight.report.tuning import TuningFacts
from flyweight.train.recipe import load_recipe
from flyweight.train.run import train_and_wait
from flyweight.tune.search import Source
from flyweight.tune.stop import LEAST_TRIALS

PARAMS = (
    {"key": "optim.lr", "low": 0.001, "high": 1.0, "log": True, "likely": 0.1},
    {"key": "label_smoothing", "low": 0.0, "high": 0.3},
)
SETTINGS = ["epochs=3", "batch_size=32", "data.image_size=8", "threads=1", "compile=false", "precision=fp32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 images of two classes that a mean brightness tells apart."""
    draw = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = draw.integers(0, 120, (400, 8, 8, 3)) + 90 * labels[:, None, None, None]
    file = tmp_path_factory.mktemp("data") / "two.npz"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return file


def with_params(*more: dict[str, Any]) -> dict[str, Any]:
    """Return the search space of these tests, with more in it."""
    return {"params": [*more, *PARAMS], "fixed": {"model.name": "tiny_cnn_4", "ema_decay": None}}


def command(data: Path, out: Path, *more: str, space: dict[str, Any] | None = None) -> list[str]:
    file = out.parent / "space.yaml"
    file.write_text(yaml.safe_dump(space or with_params()))
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    common = ["--space", str(file), "--rungs", "2", "--trials", "4", "--jobs", "1", "--out", str(out)]
    return ["tune", str(data), "--recipe", "smoke", *settings, *common, *more]


def facts_in(out: Path) -> TuningFacts:
    return TuningFacts.model_validate_json((out / "report.json").read_text())


def outcome(out: Path) -> list[tuple[object, ...]]:
    """Return what must be the same again of every trial: values, status and scores, no clock."""
    return [
        (t.number, sorted(t.values.items()), t.status, [(r.rung, r.score, r.images) for r in t.results])
        for t in facts_in(out).trials
    ]


def test_a_search_ends_with_a_recipe_that_gives_the_same_accuracy_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(command(data, out)) == 0
    printed = capsys.readouterr().out
    assert "flyweight train" in printed
    facts = facts_in(out)
    assert sorted(trial.status for trial in facts.trials) == ["finished", "finished", "stopped", "stopped"]
    best = facts.trial(facts.best or 0)
    assert best.status == "finished"
    assert facts.image_passes == sum(result.images for trial in facts.trials for result in trial.results)
    recipe = load_recipe(out / "recipe.yaml")
    again = train_and_wait(Source(str(data)).load(), recipe, tmp_path / "again", device="cpu")
    assert again.metrics["val_accuracy"] == best.score
    assert "plot-history" in (out / "report.html").read_text()
    assert run(["report", str(out)]) == 0


def test_the_same_command_changes_nothing_and_more_trials_go_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(command(data, out, "--trials", "3")) == 0
    before = outcome(out)
    assert run(command(data, out, "--trials", "3")) == 0
    assert outcome(out) == before
    assert run(command(data, out, "--trials", "5")) == 0
    assert outcome(out)[:3] == before
    assert len(outcome(out)) == 5


def test_a_grid_is_tried_whole_although_the_given_recipe_is_one_of_its_points(data: Path, tmp_path: Path) -> None:
    space = {"params": [{"key": "batch_size", "choices": [32, 64]}, {"key": "label_smoothing", "choices": [0.0, 0.1]}]}
    space |= {"fixed": {"model.name": "tiny_cnn_4", "ema_decay": None}}
    out = tmp_path / "out"
    assert run(command(data, out, "--sampler", "grid", "--trials", "9", "--stop", "none", space=space)) == 0
    tried = [trial.values for trial in facts_in(out).trials]
    assert sorted((one["batch_size"], one["label_smoothing"]) for one in tried) == [
        (32, 0.0), (32, 0.1), (64, 0.0), (64, 0.1),
    ]  # fmt: skip


def test_what_breaks_the_budget_is_never_trained(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    space = with_params({"key": "model.args.width", "choices": [4, 32]})
    assert run(command(data, out, "--budget", "params<5k", "--trials", "3", space=space)) == 0
    trials = facts_in(out).trials
    wide = [trial for trial in trials if trial.values["model.args.width"] == 32]
    assert wide
    assert all(trial.status == "over budget" and not trial.results for trial in wide)
    assert all((trial.costs["params"] or 0) > 5000 for trial in wide)
    assert sum(bool(trial.results) for trial in trials) == 3


def test_with_several_objectives_the_front_is_reported(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    space = with_params({"key": "model.args.width", "choices": [4, 8]})
    assert run(command(data, out, "--objective", "accuracy,size", "--stop", "none", space=space)) == 0
    facts = facts_in(out)
    assert facts.front
    finished = [trial for trial in facts.trials if trial.results]
    for number in facts.front:
        mine = facts.trial(number)
        for other in finished:
            beats = (other.score or 0) > (mine.score or 0) and (other.costs["size"] or 0) < (mine.costs["size"] or 0)
            assert not beats
    stored = sqlite3.connect(out / "study.db").execute("select count(distinct objective) from trial_values").fetchone()
    assert stored == (2,)


@pytest.mark.parametrize("stop", ["halving", "hyperband"])
def test_with_several_objectives_what_is_handed_out_was_trained_in_full_and_lies_on_the_front(
    stop: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images are so easy that many trials reach the same score, short ones and wide networks too."""
    out = tmp_path / "out"
    space = with_params({"key": "model.args.width", "choices": [4, 8, 16], "likely": 16})
    words = command(data, out, "--objective", "accuracy,size", "--stop", stop, "--trials", "6", space=space)
    assert run(words) == 0
    printed = capsys.readouterr().out
    facts = facts_in(out)
    finals = [trial for trial in facts.trials if trial.status == "finished"]
    assert 0 < len(finals) < len(facts.trials)
    best = facts.trial(facts.best or 0)
    assert best in finals
    assert best.score == facts.best_expected == max(trial.score or 0.0 for trial in finals)
    points = {trial.number: (-(trial.score or 0.0), trial.costs["size"] or 0.0) for trial in finals}
    front = {
        number
        for number, (loss, size) in points.items()
        if not any(a <= loss and b <= size and (a, b) != (loss, size) for a, b in points.values())
    }
    assert set(facts.front) == front
    assert best.number in front
    assert {file.name for file in (out / "recipes").iterdir()} == {f"{number:04d}.yaml" for number in front}
    for number, file in zip(facts.front, facts.front_recipes, strict=True):
        assert file in printed
        recipe = load_recipe(file)
        assert recipe.epochs == 3
        assert recipe.optim.lr == facts.trial(number).values["optim.lr"]
        assert f"{100 * (facts.trial(number).score or 0.0):.2f} %" in str(recipe.expected)
    assert load_recipe(out / "recipe.yaml") == load_recipe(out / "recipes" / f"{best.number:04d}.yaml")


def test_each_scientific_choice_gets_as_many_trials_and_its_own_best(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    space = with_params({"key": "optim.name", "choices": ["sgd", "adamw"], "role": "scientific"})
    assert run(command(data, out, "--trials", "6", space=space)) == 0
    facts = facts_in(out)
    choices = facts.choices
    assert {choice.choice["optim.name"]: choice.trials for choice in choices} == {"sgd": 3, "adamw": 3}
    assert all(choice.best is not None for choice in choices)
    *trials, best = by_choice(facts)["data"]
    assert sum(len(trace["x"]) for trace in trials) == 6
    assert dict(zip(best["y"], best["x"], strict=True)) == {
        f"optim.name = {choice.choice['optim.name']}": 100 * choice.score for choice in choices if choice.score
    }


def test_a_training_that_cannot_be_is_a_failed_trial_with_its_cause_and_the_search_goes_on(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fixed = {"model.name": "tiny_cnn_4", "optim.name": "sgd", "clip_grad_norm": None}
    space = {"params": [{"key": "optim.lr", "choices": [0.1, 1e30, 1e31]}], "fixed": fixed}
    assert run(command(data, out, "--sampler", "random", "--stop", "none", "--trials", "3", space=space)) == 0
    trials = facts_in(out).trials
    assert {trial.status for trial in trials} == {"finished", "failed"}
    assert all("the loss became" in trial.cause for trial in trials if trial.status == "failed")


@pytest.mark.slow
def test_earlier_searches_and_recipes_are_begun_from(data: Path, tmp_path: Path) -> None:
    short = ["--stop", "none", "--sampler", "random", "--set", "epochs=1"]
    for seed in ("1", "2"):
        assert run(command(data, tmp_path / seed, *short, "--trials", "4", "--seed", seed)) == 0
    load_recipe("smoke").with_settings(["optim.lr=0.02"]).save(tmp_path / "slow.yaml")
    begin = [str(tmp_path / "slow.yaml"), str(tmp_path / "1"), f"{tmp_path / '2'}:2"]
    words = [word for one in begin for word in ("--begin", one)]
    assert run(command(data, tmp_path / "out", *short, "--trials", "7", *words)) == 0

    def best(seed: str, count: int) -> list[dict[str, Any]]:
        trials = sorted(facts_in(tmp_path / seed).trials, key=lambda trial: (-(trial.score or 0), trial.number))
        return [dict(trial.values) for trial in trials[:count]]

    own, slow = {"optim.lr": 0.1, "label_smoothing": 0.0}, {"optim.lr": 0.02, "label_smoothing": 0.0}
    expected: list[dict[str, Any]] = []
    for values in (own, slow, *best("1", 3), *best("2", 2)):
        expected += [] if values in expected else [values]
    tried = [dict(trial.values) for trial in facts_in(tmp_path / "out").trials]
    assert tried[: len(expected)] == expected


def test_of_an_earlier_search_what_lies_outside_is_passed_over_and_an_error_where_all_does(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--stop", "none", "--sampler", "random", "--set", "epochs=1"]
    assert run(command(data, tmp_path / "first", *short, "--trials", "3")) == 0
    slowest = min(trial.values["optim.lr"] for trial in facts_in(tmp_path / "first").trials)
    narrow = with_params()
    narrow["params"] = [{**PARAMS[0], "low": float(slowest) * 1.01}, PARAMS[1]]
    begin = ["--begin", str(tmp_path / "first")]
    assert run(command(data, tmp_path / "second", *short, "--trials", "2", *begin, space=narrow)) == 0
    assert all(trial.values["optim.lr"] > slowest for trial in facts_in(tmp_path / "second").trials)
    narrow["params"] = [{**PARAMS[0], "low": 0.00001, "high": 0.00002, "likely": 0.000015}, PARAMS[1]]
    assert run(command(data, tmp_path / "third", *short, *begin, space=narrow)) == 1
    assert "outside of the search space" in capsys.readouterr().err
    (tmp_path / "first" / "report.json").unlink()
    (tmp_path / "first" / "recipe.yaml").unlink()
    assert run(command(data, tmp_path / "third", *short, *begin)) == 1
    assert "it holds no recipe" in capsys.readouterr().err


def test_a_recipe_that_lies_outside_of_the_space_is_not_begun_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_recipe("smoke").with_settings(["optim.lr=5"]).save(tmp_path / "fast.yaml")
    assert run(command(data, tmp_path / "out", "--begin", str(tmp_path / "fast.yaml"))) == 1
    assert "outside of the search space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--sampler", "bayes"], "there is no sampler 'bayes'"),
        (["--stop", "median"], "--stop 'median'"),
        (["--engine", "slurm"], "there is no engine 'slurm'"),
        (["--space", "nowhere"], "there is no search space"),
        (["--objective", "accuracy,weight"], "there is no objective 'weight'"),
        (["--objective", "accuracy,macro_f1"], "names an objective twice"),
        (["--objective", "accuracy,size", "--margin", "1"], "--margin with several objectives"),
        (["--budget", "latency_p50<5ms,latency_p90<2ms"], "is tighter than"),
        (["--budget", "memory<10MB,memory_increment<20MB"], "is tighter than"),
        (["--budget", "maximize=macro_f1", "--objective", "accuracy"], "the budget maximises 'macro_f1'"),
        (["--budget", "size<1KB,size<2KB"], "'size' stands twice"),
        (["--budget", "size<1B"], "none of 40 trials keeps the budget"),
        (["--recipe", "unfreeze"], "has stages"),
        (["--rungs", "6"], "cannot be made shorter"),
        (["--shrink", "depth"], "--shrink 'depth'"),
        (["--sampler", "grid"], "has a range or a condition"),
        (["--storage", "nothing"], "is no database"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_three_lines(
    more: list[str], says: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(data, tmp_path / "out", *more)) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "do: " in error
    assert "Traceback" not in error


def test_a_search_of_other_data_or_another_recipe_does_not_go_on_in_its_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(command(data, out, "--trials", "1", "--stop", "none")) == 0
    assert run(command(data, out, "--trials", "1", "--stop", "none", "--set", "epochs=4")) == 1
    assert "was begun with another recipe" in capsys.readouterr().err
    with np.load(data) as content:
        np.savez(tmp_path / "other.npz", images=content["images"][:300], labels=content["labels"][:300])
    assert run(command(tmp_path / "other.npz", out, "--trials", "1", "--stop", "none")) == 1
    assert "was begun with another data" in capsys.readouterr().err


def test_a_search_does_not_go_on_with_other_code_or_libraries(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(command(data, out, "--trials", "1", "--stop", "none")) == 0
    with contextlib.closing(sqlite3.connect(out / "study.db")) as database, database:
        (facts,) = database.execute("select value_json from study_user_attributes where key = 'flyweight'").fetchone()
        begun = {**json.loads(facts), "code of flyweight.train": "0123456789abcdef", "version of torch": "1.0"}
        database.execute(
            "update study_user_attributes set value_json = ? where key = 'flyweight'", (json.dumps(begun),)
        )
    assert run(command(data, out, "--trials", "1", "--stop", "none")) == 1
    error = capsys.readouterr().err
    assert "begun with another code of flyweight.train, version of torch" in error
    assert f"version of torch: 1.0 there, {torch.__version__.partition('+')[0]}" in error
    assert "do: " in error


def test_the_report_is_printed_as_json(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(data, tmp_path / "out", "--trials", "1", "--stop", "none", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "tuning"


def test_a_search_space_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--show-space", "training"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "training"


@pytest.mark.slow
def test_a_search_ends_by_itself_when_a_gain_of_the_margin_has_become_unlikely(data: Path, tmp_path: Path) -> None:
    more = [
        "--trials",
        "60",
        "--stop",
        "none",
        "--sampler",
        "random",
        "--set",
        "epochs=1",
        "--set",
        "data.train_fraction=0.2",
    ]
    assert run(command(data, tmp_path / "out", *more, "--margin", "90")) == 0
    facts = facts_in(tmp_path / "out")
    assert LEAST_TRIALS <= len(facts.trials) < 60
    assert facts.ended == "Ended: a gain of 90 points has become unlikely, or the space is searched."
    assert facts.recipe
    before = outcome(tmp_path / "out")
    assert run(command(data, tmp_path / "out", *more, "--margin", "90")) == 0
    assert outcome(tmp_path / "out") == before


def test_a_combination_that_cannot_be_built_fails_alone(data: Path, tmp_path: Path) -> None:
    """tiny_cnn_4 has no branches whose last norm could begin at zero."""
    space = with_params({"key": "model.init", "choices": ["zero_gamma", "kaiming"]})
    assert run(command(data, tmp_path / "out", "--sampler", "random", "--stop", "none", space=space)) == 0
    trials = facts_in(tmp_path / "out").trials
    failed = [trial for trial in trials if trial.values["model.init"] == "zero_gamma"]
    assert 0 < len(failed) < len(trials)
    for trial in failed:
        assert trial.status == "failed"
        assert "zero_gamma" in trial.cause
    assert all(trial.status == "finished" for trial in trials if trial not in failed)
