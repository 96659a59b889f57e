"""Comparisons, ablations and shipped studies from a program: what the commands do, as functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.studies.small import small_cifar10

from flyweight.api import ablate, compare, reproduce
from flyweight.errors import FlyweightError, RecipeError
from flyweight.measure.latency import QUICK
from flyweight.studies.trial import RESULT

SHORT = ("epochs=1", "epoch_images=256", "data.image_size=12")


@pytest.mark.slow
def test_a_comparison_is_returned_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.studies.deployed.FULL", QUICK)

    def ask() -> list[list[float]]:
        facts = compare("sample", ["tiny_cnn_4", "tiny_cnn_6"], tmp_path, settings=SHORT, seeds=1, per_class=[60])
        (data,) = facts.datasets
        assert {arm.arm for arm in data.arms} == {"tiny_cnn_4", "tiny_cnn_6"}
        assert all(arm.deployed for arm in data.arms)
        return [list(arm.per_seed) for arm in data.arms]

    first = ask()
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob(RESULT)}
    assert len(written) == 2
    assert ask() == first
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob(RESULT)} == written
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_an_ablation_is_returned(tmp_path: Path) -> None:
    factors = ["still: augment.shift=0", "sharp: label_smoothing=0.05"]
    facts = ablate("sample", factors, tmp_path, settings=SHORT, seeds=1, per_class=60)
    assert {arm.arm for arm in facts.datasets[0].arms} == {"base", "still", "sharp"}


def test_a_shipped_study_is_returned(tmp_path: Path) -> None:
    small_cifar10(tmp_path / "data")
    facts = reproduce(
        "lightweight_five", tmp_path / "data", tmp_path / "out", scale="smoke", arms=["mobilenetv3_small"]
    )
    assert [arm.arm for arm in facts.datasets[0].arms] == ["mobilenetv3_small"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"study": "five"}, "there is no study 'five'"),
        ({"scale": "large"}, "there is no scale 'large'"),
        ({"seeds": 11}, "--seeds 11, but there are 10 folds"),
    ],
)
def test_what_cannot_be_reproduced_is_said(changes: dict[str, object], what: str, tmp_path: Path) -> None:
    asked = {"study": "lightweight_five", "data": tmp_path, "out": tmp_path / "out", "scale": "smoke", **changes}
    with pytest.raises(RecipeError, match=what):
        reproduce(**asked)  # type: ignore[arg-type]


def test_data_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(FlyweightError, match="cifar10"):
        reproduce("lightweight_five", tmp_path, tmp_path / "out", scale="smoke")
