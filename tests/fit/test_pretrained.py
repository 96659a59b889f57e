"""With few images a class, `fit` also tries what can begin from weights on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from flyweight.cli import run
from flyweight.data.sources import load_data
from flyweight.errors import ModelError
from flyweight.fit.candidates import Candidate, recipe_for
from flyweight.fit.contest import Round, _stages
from flyweight.fit.pretrained import pretrained_candidates
from flyweight.models.architecture import Architecture
from flyweight.models.weights import SHIPPED, Weights, stored
from flyweight.train.recipe import load_recipe

BEGUN = Candidate("tiny_cnn_8", 24, pretrained="someone/tiny")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("FLYWEIGHT_WEIGHTS", str(folder))
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    return folder


def keep(folder: Path, name: str, architecture: Architecture, **trained_on: object) -> None:
    torch.manual_seed(0)
    state = architecture.build().state_dict()
    Weights(name, architecture, state, "", "a test", "noise", trained_on).save(folder / name)


def test_a_network_is_tried_once_at_the_size_of_its_weights_and_the_rest_is_said(here: Path, tmp_path: Path) -> None:
    sample = load_data("sample")  # 28 px
    keep(here, "a", Architecture("tiny_cnn_8", 9, 3, 24))
    keep(here, "b", Architecture("tiny_cnn_8", 9, 3, 24))
    keep(here, "c", Architecture("tiny_cnn_16", 9, 3, 32))
    keep(here, "wide", Architecture("tiny_cnn_8", 9, 3, 24, {"width": 30}))
    keep(here, "large", Architecture("tiny_cnn_8", 9, 3, 224))
    other = {"kind": "stratified", "seed": 77, "val_fraction": 0.4}
    keep(here, "seen", Architecture("tiny_cnn_8", 9, 3, 24), fingerprint=sample.fingerprint(), split=other)
    (here / "broken").mkdir()
    (here / "broken" / "weights.json").write_text("{}")
    found = pretrained_candidates(sample, tmp_path / "kept.json")
    assert found.candidates == (
        Candidate("tiny_cnn_8", 24, pretrained="a"),
        Candidate("tiny_cnn_16", 32, pretrained="c"),
    )
    shipped = {name for name, folder in stored() if SHIPPED in folder.parents}  # for 64 px, and these have 28
    assert set(found.skipped) == {"wide", "large", "seen", "broken"} | shipped
    assert "another split" in found.skipped["seen"]
    only = pretrained_candidates(sample, tmp_path / "other.json", models=["tiny_cnn_16"])
    assert [candidate.pretrained for candidate in only.candidates] == ["c"]


def test_a_stopped_fit_goes_on_with_the_weights_it_began_with(here: Path, tmp_path: Path) -> None:
    sample, file = load_data("sample"), tmp_path / "kept.json"
    keep(here, "b", Architecture("tiny_cnn_8", 9, 3, 24))
    first = pretrained_candidates(sample, file)
    keep(here, "a", Architecture("tiny_cnn_8", 9, 3, 24))
    keep(here, "more", Architecture("tiny_cnn_16", 9, 3, 24))
    assert pretrained_candidates(sample, file).candidates == first.candidates
    shutil.rmtree(here / "b")
    with pytest.raises(ModelError, match="'b'"):
        pretrained_candidates(sample, file)


def test_its_head_is_fitted_first_and_once_and_then_all_of_it_learns_slowly() -> None:
    tuned = load_recipe("finetune").stages[-1]
    assert tuned.optim is not None
    assert tuned.optim.layer_decay
    first = _stages(Round(0, BEGUN, 3, 100), begins=True)
    assert [(stage.probe, stage.optim) for stage in first] == [(True, None), (False, tuned.optim)]
    later = _stages(Round(1, BEGUN, 3, 100), begins=False)
    assert [(stage.probe, stage.optim) for stage in later] == [(False, tuned.optim)]
    assert recipe_for(BEGUN, channels=3, seed=0).model.pretrained == "someone/tiny"
    assert _stages(Round(0, Candidate("tiny_cnn_8", 24), 3, 100), begins=True) == ()


@pytest.mark.slow
def test_a_fit_of_few_photos_begins_from_weights_that_are_there(photos: Path, here: Path, tmp_path: Path) -> None:
    keep(here, "someone/tiny", Architecture("tiny_cnn_8", 9, 3, 24))
    command = [
        "fit",
        str(photos),
        "--budget",
        "size<300KB",
        "--out",
        str(tmp_path / "out"),
        "--minutes",
        "0.2",
        "--runtimes",
        "none",
    ]
    assert run([*command, "--models", "tiny_cnn_8", "--sizes", "24", "--json"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    tried = {row["name"]: row["status"] for row in report["candidates"]}
    assert set(tried) == {"tiny_cnn_8@24", "tiny_cnn_8@24-pretrained"}
    assert sorted(tried.values()) == ["finalist", "pick"]
