"""With few images a class, `fit` also tries what can begin from weights on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flyweight.cli import run
from flyweight.fit.candidates import Candidate, pretrained_for, recipe_for
from flyweight.fit.contest import FINETUNE, Round, _stages
from flyweight.models.architecture import Architecture
from flyweight.models.weights import Weights

BEGUN = Candidate("tiny_cnn_8", 24, pretrained="someone/tiny")


def test_a_network_is_tried_once_at_the_size_of_its_weights_where_that_is_allowed() -> None:
    weights = {
        "one": Architecture("tiny_cnn_8", 9, 3, 24),
        "two": Architecture("tiny_cnn_8", 9, 3, 24),
        "wide": Architecture("tiny_cnn_8", 9, 3, 24, {"width": 30}),
        "large": Architecture("tiny_cnn_16", 9, 3, 32),
    }
    both = [Candidate("tiny_cnn_8", 24, pretrained="one"), Candidate("tiny_cnn_16", 32, pretrained="large")]
    assert pretrained_for(weights) == both
    assert pretrained_for(weights, models=["tiny_cnn_16"]) == both[1:]
    assert pretrained_for(weights, sizes=[24]) == both[:1]


def test_its_head_is_fitted_first_and_once_and_then_all_of_it_learns_slowly() -> None:
    first = _stages(Round(0, BEGUN, 3, 100), begins=True)
    assert [(stage.probe, stage.optim) for stage in first] == [(True, None), (False, FINETUNE)]
    later = _stages(Round(1, BEGUN, 3, 100), begins=False)
    assert [(stage.probe, stage.optim) for stage in later] == [(False, FINETUNE)]
    assert recipe_for(BEGUN, channels=3, seed=0).model.pretrained == "someone/tiny"
    assert _stages(Round(0, Candidate("tiny_cnn_8", 24), 3, 100), begins=True) == ()


@pytest.mark.slow
def test_a_fit_of_few_photos_begins_from_weights_that_are_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_WEIGHTS", str(tmp_path / "weights"))
    torch.manual_seed(0)
    architecture = Architecture("tiny_cnn_8", 9, 3, 24)
    weights = Weights("someone/tiny", architecture, architecture.build().state_dict(), "", "a test", "noise")
    weights.save(tmp_path / "weights" / "someone" / "tiny")
    command = ["fit", str(photos), "--budget", "size<300KB", "--out", str(tmp_path / "out"), "--minutes", "0.2"]
    assert run([*command, "--models", "tiny_cnn_8", "--sizes", "24", "--json"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    tried = {row["name"]: row["status"] for row in report["candidates"]}
    assert set(tried) == {"tiny_cnn_8@24", "tiny_cnn_8@24-pretrained"}
    assert sorted(tried.values()) == ["finalist", "pick"]
