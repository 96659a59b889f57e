"""The order of networks on nested subsets of one data set: tau-b between sizes, for arms that all sizes have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from flyweight.cli import run as cli
from flyweight.cli.compare import _sizes
from flyweight.errors import RecipeError
from flyweight.report.build import rebuild
from flyweight.report.study import build_study_report
from flyweight.studies.analyse import analyse
from flyweight.studies.compared import comparison
from flyweight.studies.schedule import TrialDone, run_trials
from flyweight.studies.study import Study, Subset, Trial, load_study, recipe_of, trials
from flyweight.studies.trial import CORRECT, RESULT, Place
from flyweight.train.recipe import Recipe, load_recipe

MODELS = ("tiny_cnn_4", "tiny_cnn_6", "tiny_cnn_8", "tiny_cnn_12")
# Accuracy at 50 and at 200 images a class: the second and third change places.
SCORES = {"tiny_cnn_4": (0.50, 0.60), "tiny_cnn_6": (0.60, 0.80), "tiny_cnn_8": (0.62, 0.75), "tiny_cnn_12": (0.7, 0.9)}


def written(place: Place, study: Study, scores: dict[str, tuple[float, float]] = SCORES) -> list[Trial]:
    """Write made-up results of every trial; seeds differ by a hair."""
    order = trials(study, study.scales["own"])
    for trial in order:
        large = trial.dataset.endswith("200")
        accuracy = scores[trial.arm][large] + 0.001 * trial.seed
        place.of(trial).mkdir(parents=True)
        np.save(place.of(trial) / CORRECT, np.arange(1000) < 1000 * accuracy)
        result = {
            "dataset": trial.dataset, "arm": trial.arm, "seed": trial.seed, "accuracy": accuracy, "n": 1000,
            "train_images": 2000 if large else 500, "top5": 0.9, "balanced": accuracy, "ece": 0.1, "classes": 10,
            "val_accuracy": 0.9, "params": 10, "macs": 20, "macs_by_torch": 20, "size_bytes": 100, "pretrained": None,
            "tuning": [], "image_passes": 7, "int8_bytes": None, "train_macs": 1e9, "train_seconds": 1.0, "epochs": 1,
        }  # fmt: skip
        (place.of(trial) / RESULT).write_text(json.dumps(result))
    return order


def sized(seeds: int) -> Study:
    sizes = [Subset(per_class=50), Subset(per_class=200)]
    return comparison(["sample"], MODELS, Recipe(), seeds=seeds, sizes=sizes)


def test_two_sizes_are_two_data_sets_and_the_order_between_them_is_compared(tmp_path: Path) -> None:
    study, place = sized(3), Place(tmp_path, tmp_path)
    facts = analyse(study, "own", written(place, study), place)
    (found,) = facts.rankings
    assert [(size.dataset, size.train_images) for size in found.sizes] == [("sample-50", 500), ("sample-200", 2000)]
    assert {arm.arm: arm.ranks for arm in found.arms} == {
        "tiny_cnn_4": (4, 4), "tiny_cnn_6": (3, 2), "tiny_cnn_8": (2, 3), "tiny_cnn_12": (1, 1),
    }  # fmt: skip
    (pair,) = found.agreements
    expected = kendalltau(*zip(*SCORES.values(), strict=True), variant="b").statistic
    assert pair.tau.value == pytest.approx(expected)
    assert (pair.tau.low, pair.tau.high) == (pytest.approx(expected), pytest.approx(expected))  # every seed agrees
    page = build_study_report(facts, tmp_path).html.read_text()
    assert 'id="plot-ranking-sample-50"' in page
    assert rebuild(tmp_path, tmp_path / "again").html.read_text() == page


def test_recipes_are_ranked_by_size_as_networks_are(tmp_path: Path) -> None:
    recipes = [
        Recipe(name=name).with_settings([f"augment.mixup={share}"]) for name, share in (("bare", 0), ("mix", 0.2))
    ]
    sizes = [Subset(per_class=50), Subset(per_class=200)]
    study = comparison(["sample"], MODELS[:2], recipes[0], more=recipes[1:], seeds=3, sizes=sizes)
    # With few images mixup hurts, with many it helps; the networks keep their order within each recipe.
    scores = {
        "tiny_cnn_4.bare": (0.60, 0.70), "tiny_cnn_4.mix": (0.50, 0.75),
        "tiny_cnn_6.bare": (0.65, 0.80), "tiny_cnn_6.mix": (0.55, 0.90),
    }  # fmt: skip
    assert set(study.arms) == set(scores)
    mixed = {name: recipe_of(study, study.scales["own"], Trial(0, "sample-50", name)) for name in scores}
    assert {name: recipe.augment.mixup for name, recipe in mixed.items()} == {
        name: 0.2 if name.endswith("mix") else 0 for name in scores
    }
    place = Place(tmp_path, tmp_path)
    facts = analyse(study, "own", written(place, study, scores), place)
    (found,) = facts.rankings
    assert {arm.arm: arm.ranks for arm in found.arms} == {
        "tiny_cnn_4.bare": (2, 4), "tiny_cnn_4.mix": (4, 3), "tiny_cnn_6.bare": (1, 2), "tiny_cnn_6.mix": (3, 1),
    }  # fmt: skip
    assert found.agreements[0].tau.value == pytest.approx(kendalltau(*zip(*scores.values(), strict=True)).statistic)
    page = build_study_report(facts, tmp_path).html.read_text()
    assert all(arm.title in page for arm in found.arms)
    assert len({arm.title for arm in found.arms}) == 4


def test_with_two_seeds_the_tau_has_no_interval(tmp_path: Path) -> None:
    study, place = sized(2), Place(tmp_path, tmp_path)
    (found,) = analyse(study, "own", written(place, study), place).rankings
    assert found.agreements[0].tau.low is None


def test_an_arm_that_lacks_a_seed_at_one_size_is_not_ranked_by_size(tmp_path: Path) -> None:
    study, place = sized(3), Place(tmp_path, tmp_path)
    order = written(place, study)
    lost = place.of(Trial(1, "sample-200", "tiny_cnn_12")) / RESULT
    lost.write_text(json.dumps({"diverged": {"epoch": 2, "why": "it rose"}, "train_seconds": 1.0, "classes": 10}))
    facts = analyse(study, "own", order, place)
    assert "tiny_cnn_12" not in {arm.arm for arm in facts.rankings[0].arms}
    assert facts.diverged == {"sample-200/tiny_cnn_12/seed1": "it rose"}
    arm = next(arm for arm in facts.datasets[1].arms if arm.arm == "tiny_cnn_12")
    assert (arm.diverged, len(arm.per_seed), arm.ranked) == (1, 2, False)
    assert "1 of 3 seeds diverged" in build_study_report(facts, tmp_path).html.read_text()


def test_other_data_sets_are_no_sizes_of_one(tmp_path: Path) -> None:
    study = comparison(["sample"], MODELS, Recipe(), seeds=1)
    assert list(study.datasets) == ["sample"]
    place = Place(tmp_path, tmp_path)
    assert analyse(study, "own", written(place, study), place).rankings == ()


def test_the_subsets_of_the_shipped_study_of_few_images_are_sizes_of_one_data_set() -> None:
    study = load_study("few_images")
    origins = {(facts.source or facts.of or name) for name, facts in study.datasets.items()}
    assert len(origins) < len(study.datasets)


def test_sizes_are_trained_on_nested_images_and_scored_on_the_same_ones(tmp_path: Path) -> None:
    recipe = load_recipe("compare").with_settings(["epochs=1"])
    sizes = [Subset(fraction=0.02), Subset(fraction=0.04)]
    study = comparison(["sample"], MODELS[:2], recipe, seeds=1, sizes=sizes)
    place, order = Place(Path(), tmp_path), trials(study, study.scales["own"])
    events = list(run_trials(study, study.scales["own"], order, place, jobs=1))
    results = [event.result for event in events if isinstance(event, TrialDone)]
    assert [result["dataset"] for result in results] == ["sample-2pc"] * 2 + ["sample-4pc"] * 2
    assert len({result["n"] for result in results}) == 1
    (found,) = analyse(study, "own", order, place).rankings
    small, large = (size.train_images for size in found.sizes)
    assert small < large <= 0.04 * 6000


@pytest.mark.parametrize(
    ("per_class", "fraction", "words"),
    [("50,few", None, "not a list of numbers"), (None, "0.1,2", "at most 1"), ("1,20", None, "2 images or more"),
     ("50", "0.5", "one of them")],
)  # fmt: skip
def test_sizes_that_are_none_are_said(per_class: str | None, fraction: str | None, words: str) -> None:
    with pytest.raises(RecipeError) as raised:
        _sizes(None, per_class, fraction)
    assert words in str(raised.value)


def test_the_command_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["compare", "sample", "--per-class", "x", "--out", str(tmp_path)]) == 1
    assert "--per-class 'x' is not a list of numbers above zero" in capsys.readouterr().err


def test_one_scheme_of_initialization_is_compared_like_any_other_recipe() -> None:
    study = comparison(["sample"], MODELS[:2], Recipe().with_settings(["model.init=orthogonal"]), seeds=1)
    assert {arm.recipe["model"]["init"] for arm in study.arms.values()} == {"orthogonal"}
