"""The shipped studies run end to end at scale smoke, on small data in the true file formats."""

from __future__ import annotations

import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.studies.small import small_cifar10, small_tiny_imagenet

from flyweight.cli import run
from flyweight.models.architecture import Architecture
from flyweight.models.weights import Weights, load_weights
from flyweight.published.shipped import resolve
from flyweight.report.study import StudyFacts
from flyweight.studies.study import load_study, plan_study, recipe_of, trials

PRETRAINED = "flyweight/mobilenetv3_small_100.tiny_imagenet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    small_cifar10(folder)
    return folder


@pytest.mark.parametrize(
    "name", ["tiny_cnn", "tiny_family", "lightweight_five", "tuning_seven", "few_images", "all_images"]
)
def test_every_arm_of_every_scale_makes_a_recipe(name: str) -> None:
    study = load_study(name)
    for scale in study.scales.values():
        for trial in trials(study, scale, datasets=list(study.datasets), arms=list(study.arms)):
            assert recipe_of(study, scale, trial).seed == trial.seed


def test_the_five_nets_are_all_ranked_and_each_factor_has_its_question() -> None:
    study = load_study("lightweight_five")
    assert {"mobilenetv3_small", "resnet18", "squeezenet", "efficientnetv2_s", "shufflenetv2"} <= set(study.ranked)
    asked = {arm for question in study.questions for arm in question.arms}
    assert {name for name in study.arms if name not in study.ranked} <= asked
    tuned = [arm.tune for arm in study.arms.values() if arm.tune]
    assert len({(len(tune.tries), tune.epochs) for tune in tuned}) == 1


@pytest.mark.slow  # scale smoke of tuning_seven is run without
def test_lightweight_five_runs_at_scale_smoke(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "lightweight_five", "--scale", "smoke", "--data", str(data), "--out", str(tmp_path / "out")]
    assert run([*command, "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "not trained enough" in printed
    facts = StudyFacts.model_validate_json((tmp_path / "out" / "report.json").read_text())
    arms = {arm.arm: arm for arm in facts.datasets[0].arms}
    assert set(arms) == {"mobilenetv3_small", "squeezenet"}
    for arm in arms.values():
        assert not arm.enough
        assert arm.letters == ""
        assert arm.macs == arm.macs_by_torch
        assert arm.deployed is not None
        assert arm.image_passes == 256
    result = json.loads((tmp_path / "out/trials/cifar10/squeezenet/seed0/result.json").read_text())
    assert result["train_images"] == pytest.approx(540, abs=30)  # 60 a class, a tenth held out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "title", "arms"),
    [
        ("few_images", "10 images a class", ["scratch", "scratch_tiny", "probe", "finetune"]),
        ("all_images", "CIFAR-10, all images", ["scratch", "finetune"]),
    ],
)
def test_pretraining_is_asked_about_at_scale_smoke(
    name: str, title: str, arms: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_WEIGHTS", str(tmp_path / "weights"))
    torch.manual_seed(0)
    architecture = Architecture("mobilenetv3_small_100", 200, 3, 64)
    weights = Weights(PRETRAINED, architecture, architecture.build().state_dict(), "", "a test", "noise")
    weights.save(tmp_path / "weights" / PRETRAINED)
    command = ["reproduce", name, "--scale", "smoke", "--data", str(data), "--out", str(tmp_path / "out")]
    assert run([*command, "--jobs", "1", "--json"]) == 0
    facts = StudyFacts.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert [arm.arm for arm in facts.datasets[0].arms] == arms
    assert facts.datasets[0].title == title
    assert {verdict.answer for verdict in facts.verdicts} == {"too few seeds"}


def test_the_weights_that_studies_begin_with_come_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLYWEIGHT_WEIGHTS", raising=False)
    found = load_weights(PRETRAINED)
    assert (found.architecture.name, found.architecture.image_size) == ("mobilenetv3_small_100", 64)
    for name in ("lightweight_five", "few_images", "all_images"):
        recipes = [arm.recipe for arm in load_study(name).arms.values()]
        asked = {recipe["model"].get("pretrained") for recipe in recipes}
        assert asked == {None, PRETRAINED}


def test_tuning_seven_asks_of_every_net_and_of_every_step_after_the_one_before() -> None:
    study = load_study("tuning_seven")
    nets = [name for name in study.arms if name in study.ranked]
    assert len(nets) == 8
    asked = {(question.first[0], question.second[0]) for question in study.questions}
    light = ["mobilenetv3_large", "mobilevitv2_050", "mobilevitv2_075"]
    assert {(name, f"{name}_published") for name in nets} <= asked
    assert {(f"{name}_tuned", name) for name in light} <= asked
    for name in light[:2]:
        ladder = [name, *(f"{name}_{step}" for step in ("randaugment", "mixup", "cutmix", "smoothing"))]
        assert {(after, before) for before, after in pairwise(ladder)} | {(ladder[-1], name)} <= asked
    tuned = [arm.tune for arm in study.arms.values() if arm.tune]
    assert len(tuned) == 3
    assert len({json.dumps(tune.model_dump()) for tune in tuned}) == 1


def test_tuning_seven_keeps_earlier_steps_and_trains_the_published_way_as_its_code_does() -> None:
    study = load_study("tuning_seven")
    recipes = {t.arm: recipe_of(study, study.scales["full"], t) for t in trials(study, study.scales["full"])}
    steps = [recipes[f"mobilevitv2_050_{step}"] for step in ("randaugment", "mixup", "cutmix", "smoothing")]
    on = [
        [bool(r.augment.randaugment), r.augment.mixup > 0, r.augment.cutmix > 0, r.label_smoothing > 0] for r in steps
    ]
    assert on == [[True] * (count + 1) + [False] * (3 - count) for count in range(4)]
    for name in study.ranked:
        recipe = recipes[f"{name}_published"]
        assert (recipe.optim.name, recipe.optim.lr, recipe.optim.weight_decay) == ("momentum", 0.1, 0)
        assert recipe.optim.lr * recipe.schedule.final_fraction == pytest.approx(1e-5)
        assert (recipe.schedule.warmup_fraction, recipe.ema_decay, recipe.clip_grad_norm) == (0, None, None)
        whole = recipes[name].augment.model_copy(update={"random_resized_crop": (0.08, 1.0)})
        assert recipe.augment == whole  # but for the crops, alike
        assert (recipe.batch_size, recipe.epochs, recipe.data.image_size) == (512, 300, 224)


def test_the_published_numbers_of_tuning_seven_are_those_of_its_tables() -> None:
    rows = [row for table in resolve("tuning_seven") for row in csv.DictReader(table.read_text("utf-8").splitlines())]
    found = {(f"{row['table']}, {row['arm']}", row["model"]): float(row["accuracy"]) for row in rows}
    said = [(arm.published, arm.recipe["model"]["name"]) for arm in load_study("tuning_seven").arms.values()]
    for published, model in said:
        if published:
            assert 100 * published.accuracy == pytest.approx(found[published.where, model], abs=1e-9)
    assert sum(published is not None for published, _ in said) == 7 + 2 * 4


def test_at_scale_cpu_slow_nets_of_tuning_seven_run_once_and_the_light_ones_three_times() -> None:
    study = load_study("tuning_seven")
    seeds = Counter(trial.arm for trial in trials(study, study.scales["cpu"]))
    light = {name for name in study.arms if study.arms[name].group in
             ("mobilenetv3_large", "mobilevitv2_050", "mobilevitv2_075")}  # fmt: skip
    heavy = {name for name in study.arms if name not in light and not name.endswith("_published")}
    assert seeds == dict.fromkeys(light, 3) | dict.fromkeys(heavy, 1)
    planned, _, _ = plan_study("tuning_seven", "cpu")
    assert set(planned.ranked) == {name for name in light if name in study.ranked}
    assert len(planned.ranked) == 3
    assert plan_study("tuning_seven", "full")[0].ranked == study.ranked
    assert set(Counter(trial.arm for trial in trials(study, study.scales["full"])).values()) == {3}


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seven")
    small_tiny_imagenet(folder)
    command = ["reproduce", "tuning_seven", "--scale", "smoke", "--data", str(folder), "--out", str(folder / "out")]
    assert run([*command, "--jobs", "1", "--json"]) == 0
    return folder / "out"


def test_tuning_seven_runs_at_scale_smoke(seven: Path) -> None:
    facts = StudyFacts.model_validate_json((seven / "report.json").read_text())
    arms = {arm.arm: arm for arm in facts.datasets[0].arms}
    assert set(arms) == {"mobilevitv2_050", "mobilevitv2_050_published"}
    assert {verdict.answer for verdict in facts.verdicts} == {"too few seeds"}
    published = arms["mobilevitv2_050_published"].published
    assert published is not None
    assert (published.accuracy, published.where) == (0.8736, "tuning_seven_v2, baseline")
    page = (seven / "report.html").read_text()
    assert "87.36 %" in page
    assert "1000 classes of ImageNet at 224 px" in page
