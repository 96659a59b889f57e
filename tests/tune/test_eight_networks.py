"""All eight networks of the study tuning_seven are tuned, trained, folded, exported and measured: one trial each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.studies.small import small_tiny_imagenet

from flyweight.cli import run
from flyweight.data.sources import load_data
from flyweight.export.trained import export
from flyweight.measure.speed import measure
from flyweight.models.architecture import fold
from flyweight.report.tuning import TuningFacts
from flyweight.runtime.bundle import Bundle
from flyweight.studies.study import Trial, load_study, recipe_of
from flyweight.train.trained import Trained

STUDY = load_study("tuning_seven")
SPACES = {
    "convnext_tiny": "transformer", "efficientnetv2_s": "mobile", "mobilenetv3_large": "mobile",
    "mobilevitv2_050": "transformer", "mobilevitv2_075": "transformer", "mobilevitv2_100": "transformer",
    "repvgg_a2": "plain", "tiny_vit_21m": "transformer",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of 80 images at 64 px."""
    folder = tmp_path_factory.mktemp("data")
    small_tiny_imagenet(folder, train=80)
    return folder / "tiny-imagenet-200"


def test_these_are_the_networks_of_the_study() -> None:
    assert {arm.group for arm in STUDY.arms.values()} == set(SPACES)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arm", sorted(SPACES))
def test_a_network_of_the_study_is_tuned_folded_exported_and_measured(arm: str, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(STUDY, STUDY.scales["cpu"], Trial(0, "tiny-imagenet", arm)).with_settings(["epochs=1"])
    recipe.save(tmp_path / "recipe.yaml")
    out = tmp_path / "out"
    words = ["tune", str(data), "--recipe", str(tmp_path / "recipe.yaml"), "--trials", "1", "--stop", "none"]
    assert run([*words, "--jobs", "1", "--out", str(out)]) == 0
    facts = TuningFacts.model_validate_json((out / "report.json").read_bytes())
    assert facts.conditions.details["search space"] == SPACES[arm]
    (trial,) = facts.trials
    assert trial.status == "finished", trial.cause
    assert (facts.predicted_seconds or 0) > 0

    trained = Trained.load(out / "trials" / "0000" / "rung0")
    assert trained.metrics["val_accuracy"] == trial.score
    dataset = load_data(str(data))
    bundle = export(trained, dataset, tmp_path / "bundle")
    images, logits = Bundle.open(tmp_path / "bundle").golden(bundle.variant())
    folded, architecture = fold(trained.network(), trained.architecture)
    assert architecture.folded
    with torch.inference_mode():
        as_built = trained.network()(torch.from_numpy(np.ascontiguousarray(images))).numpy()
        as_folded = folded(torch.from_numpy(np.ascontiguousarray(images))).numpy()
    assert np.allclose(as_built, as_folded, rtol=1e-3, atol=1e-3)
    assert np.allclose(logits, as_folded, rtol=1e-3, atol=1e-3)
    found = measure(tmp_path / "bundle", quick=True)
    assert (found.latency_p50_ms or 0.0) > 0
    assert found.memory_increment_bytes > 0
    assert all(row.images_per_second > 0 for row in found.throughput)
