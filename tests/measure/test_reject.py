"""The reject option: thresholds come from validation images, and other data sets show what they keep out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.api import predict
from flyweight.cli import run
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.errors import DataError
from flyweight.measure.reject import auroc, pictures, rejection
from flyweight.runtime.bundle import Bundle

BUNDLE = Path(__file__).parents[2] / "bundles" / "tiny-fashion-mnist"


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_data("sample")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures of nothing: noise, and areas of one gray."""
    root, rng = tmp_path_factory.mktemp("unlike") / "unlike", np.random.default_rng(0)
    for name in ("noise", "plain"):
        (root / name).mkdir(parents=True)
        for number in range(60):
            level = rng.integers(0, 256, (28, 28) if name == "noise" else (1, 1))
            pixels = np.broadcast_to(level, (28, 28)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_a_threshold_answers_the_share_of_validation_images_it_was_chosen_for(sample: Dataset) -> None:
    found = rejection(Bundle.open(BUNDLE), sample, shares=(0.95, 0.8))
    assert [one.answered.value for one in found.thresholds] == pytest.approx([0.95, 0.8], abs=0.005)
    strict, mild = found.at(0.8), found.at(0.95)
    assert strict.confidence > mild.confidence
    assert strict.accuracy is not None
    assert mild.accuracy is not None
    assert strict.accuracy.value > mild.accuracy.value > found.accuracy.value
    assert strict.accuracy.low < strict.accuracy.value < strict.accuracy.high


def test_images_of_nothing_are_refused_more_often_than_clothes(sample: Dataset, noise: Path) -> None:
    found = rejection(Bundle.open(BUNDLE), sample, [pictures(str(noise))], shares=(0.9,), part="test")
    (other,) = found.unlike
    assert found.part == "official test part"
    assert other.n == 120
    assert other.answered[0].value < found.at(0.9).answered.value
    assert 0.5 < other.auroc <= 1


def test_pictures_of_other_things_need_no_classes_and_equal_names_stay_two(sample: Dataset, noise: Path) -> None:
    flat = [pictures(str(noise / "noise")), pictures(str(noise / "noise"))]
    found = rejection(Bundle.open(BUNDLE), sample, flat, shares=(0.9,))
    assert [(other.name, other.n) for other in found.unlike] == [("noise", 60), ("noise", 60)]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        pictures(str(tmp_path))


def test_auroc_counts_pairs_and_halves_ties() -> None:
    known, other = np.array([0.9, 0.5, 0.5]), np.array([0.5, 0.1])
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in known for b in other]
    assert auroc(known, other) == pytest.approx(np.mean(pairs))
    assert auroc(other, known) == pytest.approx(1 - np.mean(pairs))


def test_a_data_set_with_a_class_of_the_bundle_is_not_unlike_it(sample: Dataset) -> None:
    with pytest.raises(DataError, match="which the bundle 'tiny-fashion-mnist' knows"):
        rejection(Bundle.open(BUNDLE), sample, [pictures("sample")])


def test_the_command_writes_a_bundle_that_refuses_and_whose_card_says_what(
    noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reject", str(BUNDLE), "--data", "sample", "--unlike", str(noise), "--keep", "0.9", "--part", "test"]
    assert run([*command, "--out", str(tmp_path / "careful"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    careful = Bundle.open(tmp_path / "careful")
    (chosen,) = [one for one in found["thresholds"] if one["share"] == 0.9]
    assert careful.reject_threshold == chosen["confidence"]
    refused = np.mean([one.rejected for one in predict(careful, sorted((noise / "noise").iterdir()))])
    assert refused > 0.1
    card = (tmp_path / "careful" / "card.md").read_text()
    assert "it gives no answer" in card
    assert "of 120 of unlike" in card
    assert "why" in (tmp_path / "test-openings.jsonl").read_text()
    assert run(["verify", str(tmp_path / "careful")]) == 0


def test_without_out_nothing_is_written_and_the_table_marks_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["reject", str(BUNDLE), "--data", "sample"]) == 0
    said = capsys.readouterr().out
    assert "<- --keep" in said
    assert "--keep 0.95 --out BUNDLE" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [["--keep", "1.5"], ["--part", "train"]])
def test_what_makes_no_sense_is_refused(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reject", str(BUNDLE), "--data", "sample", *more]) == 1
    assert more[1] in capsys.readouterr().err
