"""Ablations: the right arms, the right questions, and a plan that says what it could find."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flyweight.cli import run
from flyweight.errors import RecipeError
from flyweight.measure.statistics import Spread, detectable, paired_runs, runs_needed
from flyweight.report.study import StudyFacts
from flyweight.studies.ablation import Factor, ablation, parse_factor
from flyweight.studies.study import Study, recipe_of, trials
from flyweight.train.recipe import Recipe, load_recipe

SMOOTH = "smoothing: label_smoothing=0.1"
MIXUP = "mixup: augment.mixup=0.2; augment.mix_prob=0.5"
ERASE = "erase: augment.erase=0.5"
BASE = load_recipe("compare").with_settings(["label_smoothing=0", "augment.mixup=0", "augment.erase=0"])


def study_of(design: str, *texts: str, seeds: int = 3, base: Recipe = BASE, **options: object) -> Study:
    factors = [parse_factor(text, base) for text in texts]
    return ablation(["sample"], factors, base, design=design, seeds=seeds, **options)  # type: ignore[arg-type]


def settings_of(study: Study) -> dict[str, tuple[float, float, float]]:
    size = study.scales["own"]
    found = {}
    for trial in trials(study, size):
        recipe = recipe_of(study, size, trial)
        found[trial.arm] = (recipe.label_smoothing, recipe.augment.mixup, recipe.augment.erase)
    return found


def test_one_at_a_time_has_the_base_and_each_part_on_its_own() -> None:
    study = study_of("one-at-a-time", SMOOTH, MIXUP, ERASE)
    assert settings_of(study) == {
        "base": (0, 0, 0), "smoothing": (0.1, 0, 0), "mixup": (0, 0.2, 0), "erase": (0, 0, 0.5)
    }  # fmt: skip
    assert [(q.first, q.second) for q in study.questions] == [
        (("smoothing",), ("base",)), (("mixup",), ("base",)), (("erase",), ("base",))
    ]  # fmt: skip


def test_the_ladder_adds_one_after_the_other_and_asks_about_each_step() -> None:
    study = study_of("cumulative", SMOOTH, MIXUP, ERASE)
    assert list(settings_of(study).values()) == [(0, 0, 0), (0.1, 0, 0), (0.1, 0.2, 0), (0.1, 0.2, 0.5)]
    assert [(q.first[0], q.second[0]) for q in study.questions] == [
        ("smoothing", "base"), ("smoothing+mixup", "smoothing"), ("all", "smoothing+mixup")
    ]  # fmt: skip
    assert study.questions[2].ask == "Does erase help after smoothing and mixup?"


def test_leave_one_out_takes_each_part_away_from_all() -> None:
    study = study_of("leave-one-out", SMOOTH, MIXUP, ERASE)
    found = settings_of(study)
    assert found["all"] == (0.1, 0.2, 0.5)
    assert {found[q.second[0]] for q in study.questions} == {(0, 0.2, 0.5), (0.1, 0, 0.5), (0.1, 0.2, 0)}


def test_a_factorial_design_asks_for_main_effects_and_interactions() -> None:
    study = study_of("factorial", SMOOTH, MIXUP)
    assert len(set(settings_of(study).values())) == 4
    main, _, interaction = study.questions
    assert (set(main.first), set(main.second)) == ({"smoothing", "all"}, {"mixup", "base"})
    assert (set(interaction.first), set(interaction.second)) == ({"all", "base"}, {"smoothing", "mixup"})


def test_every_arm_tries_the_same_rates_first() -> None:
    study = study_of("one-at-a-time", SMOOTH, retune=["optim.lr=0.01", "optim.lr=0.1"], tune_epochs=2)
    assert all(arm.tune is not None and len(arm.tune.tries) == 3 for arm in study.arms.values())
    assert {arm.tune.model_dump_json() for arm in study.arms.values() if arm.tune} == {
        '{"tries":[{},{"optim":{"lr":0.01}},{"optim":{"lr":0.1}}],"epochs":2}'
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mixup", "not of the form"),
        ("mixup:", "not of the form"),
        ("mixup: augment.mixup", "not of the form"),
        ("base: augment.mixup=0.2", "is the name of an arm"),
        ("off: augment.mixup=0", "changes nothing"),
        ("mixup: augment.mixpu=0.2", "augment.mixpu is not a recipe key"),
    ],
)
def test_a_part_that_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        parse_factor(text, BASE)


def test_impossible_designs_are_refused() -> None:
    with pytest.raises(RecipeError, match="choose one-at-a-time, cumulative, leave-one-out, factorial"):
        study_of("ladder", SMOOTH)
    with pytest.raises(RecipeError, match="each with a name of its own"):
        study_of("cumulative", SMOOTH, SMOOTH)
    with pytest.raises(RecipeError, match="64 arms"):
        ablation(
            ["sample"], [Factor(f"f{i}", (f"epochs={i + 30}",)) for i in range(6)], BASE, design="factorial", seeds=3
        )
    with pytest.raises(RecipeError, match="11 seeds"):
        study_of("cumulative", SMOOTH, seeds=11)


@pytest.mark.parametrize("tests", [1, 16])
def test_what_the_plan_promises_is_found_at_least_four_times_in_five(tests: int) -> None:
    draw, runs, images = np.random.default_rng(0), 6, 1000
    spread = Spread(of_runs=0.01, disagreeing=0.1)
    planned, found = detectable(runs, images, tests=tests, spread=spread), []
    for _ in range(400):
        gap = np.clip(draw.normal(planned, spread.of_runs, (runs, 1)), -0.1, 0.1)
        u = draw.random((1, images))  # the same images disagree in every run
        first = np.where(
            u < (spread.disagreeing + gap) / 2, 1.0, np.where(u > 1 - (spread.disagreeing - gap) / 2, -1.0, 0)
        )
        found.append(paired_runs(first, np.zeros((runs, images))).p * tests < 0.05)
    assert np.mean(found) > 0.8 - 3 * (0.8 * 0.2 / 400) ** 0.5


def test_more_seeds_find_less_and_the_fewest_that_will_do_are_chosen() -> None:
    values = [detectable(runs, 10_000, tests=4) for runs in (3, 5, 10)]
    assert values == sorted(values, reverse=True)
    needed = runs_needed(values[1], 10_000, most=10, tests=4)
    assert needed == 5
    assert runs_needed(0.0001, 10_000, most=10) is None


def test_the_plan_says_what_it_could_find_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "sample", "--factor", ERASE, "--set", "augment.erase=0", "--out", str(tmp_path / "out")]
    assert run([*words, "--plan", "--seeds", "5"]) == 0
    printed = capsys.readouterr().out
    assert "2 arms × 5 seeds, 10 trainings, judged on 1,000 images" in printed
    assert "is found 4 times in 5" in printed
    assert not (tmp_path / "out").exists()
    assert run([*words, "--plan", "--detect", "0.01"]) == 1
    assert "as many as there are folds" in capsys.readouterr().err


def test_the_plan_counts_the_validation_images_of_the_subset(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "sample", "--factor", ERASE, "--set", "augment.erase=0", "--plan", "--part", "val"]
    words += ["--set", "data.val_fraction=0.1"]
    counts = []
    for more in ([], ["--per-class", "100"]):
        assert run([*words, *more]) == 0
        printed = capsys.readouterr().out
        counts.append(int(printed.partition("judged on ")[2].partition(" images")[0].replace(",", "")))
    assert counts == [635, 115]  # a tenth of 6,000 and of 1,000 training images, drawn by content hash


def test_an_ablation_runs_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = draw.integers(0, 120, (400, 8, 8, 3)) + 90 * labels[:, None, None, None]
    np.savez(tmp_path / "two.npz", images=images.astype(np.uint8), labels=labels)
    words = ["ablate", str(tmp_path / "two.npz"), "--recipe", "smoke", "--set", "model.name=tiny_cnn_4"]
    words += ["--set", "epochs=1", "--set", "data.image_size=8", "--factor", "slow: optim.lr=0.000001; optim.name=sgd"]
    words += ["--factor", ERASE, "--design", "factorial", "--seeds", "3", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "arms × 3 seeds" in printed
    facts = StudyFacts.model_validate(json.loads((tmp_path / "out" / "report.json").read_text()))
    asked = {verdict.short: verdict for verdict in facts.verdicts}
    assert set(asked) == {"slow", "erase", "slow × erase"}
    assert (asked["slow"].difference.value or 0) < -0.1
    assert asked["slow"].mcnemar == ()
    by_arm = {arm.arm: np.array(arm.per_seed) for arm in facts.datasets[0].arms}
    slow = (by_arm["slow"] + by_arm["all"] - by_arm["base"] - by_arm["erase"]) / 2
    assert asked["slow"].spread == pytest.approx(slow.std(ddof=1))
    assert f"varying by {100 * slow.std(ddof=1):.2f} points from seed to seed" in printed
    assert asked["slow"].spread < asked["slow"].detectable
