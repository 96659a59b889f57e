"""The shipped studies run end to end at scale smoke, on small data in the true file formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.studies.small import small_cifar10

from flyweight.cli import run
from flyweight.models.architecture import Architecture
from flyweight.models.weights import Weights
from flyweight.report.study import StudyFacts
from flyweight.studies.study import load_study, recipe_of, trials

PRETRAINED = "flyweight/mobilenetv3_small_100.tiny_imagenet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    small_cifar10(folder)
    return folder


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_family", "lightweight_five", "few_images"])
def test_every_arm_of_every_scale_makes_a_recipe(name: str) -> None:
    study = load_study(name)
    for scale in study.scales.values():
        for trial in trials(study, scale, datasets=list(study.datasets), arms=list(study.arms)):
            assert recipe_of(study, scale, trial).seed == trial.seed


def test_the_five_nets_are_all_ranked_and_each_factor_has_its_question() -> None:
    study = load_study("lightweight_five")
    assert {"mobilenetv3_small", "resnet18", "squeezenet", "efficientnetv2_s", "shufflenetv2"} <= set(study.ranked)
    asked = {question.first for question in study.questions} | {question.second for question in study.questions}
    assert {name for name in study.arms if name not in study.ranked} <= asked
    tuned = [arm.tune for arm in study.arms.values() if arm.tune]
    assert len({(len(tune.tries), tune.epochs) for tune in tuned}) == 1


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
def test_few_images_runs_at_scale_smoke(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_WEIGHTS", str(tmp_path / "weights"))
    torch.manual_seed(0)
    architecture = Architecture("mobilenetv3_small_100", 200, 3, 64)
    weights = Weights(PRETRAINED, architecture, architecture.build().state_dict(), "", "a test", "noise")
    weights.save(tmp_path / "weights" / PRETRAINED)
    command = ["reproduce", "few_images", "--scale", "smoke", "--data", str(data), "--out", str(tmp_path / "out")]
    assert run([*command, "--jobs", "1", "--json"]) == 0
    facts = StudyFacts.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert [arm.arm for arm in facts.datasets[0].arms] == ["scratch", "scratch_tiny", "probe", "finetune"]
    assert facts.datasets[0].title == "10 images a class"
    assert {verdict.answer for verdict in facts.verdicts} == {"too few seeds"}


def test_a_study_that_needs_weights_that_are_not_here_says_how_to_get_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "empty"))
    command = ["reproduce", "few_images", "--scale", "smoke", "--data", str(data), "--out", str(tmp_path / "out")]
    assert run([*command, "--arm", "probe", "--jobs", "1"]) == 1
    assert PRETRAINED in capsys.readouterr().err
