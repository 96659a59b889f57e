from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.runtime.tiny_bundle import CLASSES, SPLIT, picture, write_bundle, write_pictures

from flyweight.cli import run
from flyweight.data.sources import load_data
from flyweight.data.split import split_from_rule
from flyweight.errors import DataError
from flyweight.measure.verify import Verified, verify
from flyweight.runtime.hashes import write_sums


def test_hashes_and_golden_vectors_hold_without_data(bundle_path: Path) -> None:
    found = verify(bundle_path)
    assert found.ok
    assert found.golden_ok
    assert found.golden_n == 32
    assert found.accuracy is None
    # The weights of the one convolution, and a product for each of them in each of the three places.
    assert (found.params, found.macs) == (3 * 12 * 4, 3 * 3 * 12 * 4)
    assert found.size_bytes == (bundle_path / "model.onnx").stat().st_size


def test_accuracy_is_that_of_the_official_test_part(bundle_path: Path, test_pictures: Path) -> None:
    wrong = test_pictures / "test/left/9.png"
    Image.fromarray(picture(2, seed=77)).save(wrong)
    found = verify(bundle_path, test_pictures)
    assert found.n == 13
    assert found.accuracy == pytest.approx(12 / 13)
    assert found.accuracy_low < found.accuracy < found.accuracy_high  # type: ignore[operator]
    assert found.confusion == ((4, 0, 1), (0, 4, 0), (0, 0, 4))


def test_without_an_official_part_it_is_the_test_part_of_the_bundles_split(bundle_path: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "flat", per_class=20)
    found = verify(bundle_path, data)
    assert found.n == len(split_from_rule(load_data(data), SPLIT).test)
    assert found.part == "test part of the bundle's split"


def test_labels_are_matched_by_name_not_by_order(tmp_path: Path, test_pictures: Path) -> None:
    swapped = write_bundle(tmp_path / "swapped", classes=["right", "middle", "left"])
    assert verify(swapped, test_pictures).accuracy == pytest.approx(1 / 3)


def test_data_with_an_unknown_class_is_refused(bundle_path: Path, test_pictures: Path) -> None:
    (test_pictures / "test/left").rename(test_pictures / "test/up")
    with pytest.raises(DataError, match="'up'"):
        verify(bundle_path, test_pictures)


def test_a_grouped_split_is_never_replaced_by_an_ungrouped_one(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", split={**SPLIT, "grouped": True})
    with pytest.raises(DataError, match="split by groups"):
        verify(path, write_pictures(tmp_path / "flat", per_class=20))


@pytest.mark.parametrize(("recorded", "ok"), [(1.0, True), (0.5, False)])
def test_the_recorded_accuracy_is_checked(tmp_path: Path, test_pictures: Path, recorded: float, ok: bool) -> None:
    path = write_bundle(tmp_path / "b", accuracy={"top1": recorded, "n": 12})
    found = verify(path, test_pictures)
    assert (found.matches_card, found.ok) == (ok, ok)


def test_an_unreadable_test_image_fails_the_check_by_name(bundle_path: Path, test_pictures: Path) -> None:
    (test_pictures / "test/left/0.png").write_bytes(b"x")
    found = verify(bundle_path, test_pictures)
    assert not found.ok
    assert found.n == 11
    assert "0.png" in found.unreadable[0]["image"]


def test_an_image_that_was_unreadable_when_the_accuracy_was_recorded_is_no_failure(
    tmp_path: Path, test_pictures: Path
) -> None:
    (test_pictures / "test/left/0.png").write_bytes(b"x")
    found = verify(write_bundle(tmp_path / "b", accuracy={"top1": 1.0, "n": 11}), test_pictures)
    assert found.ok
    assert len(found.unreadable) == 1


@pytest.mark.parametrize("shift", [2e-4, np.nan])
def test_golden_logits_that_differ_fail(bundle_path: Path, shift: float) -> None:
    path = bundle_path / "golden/logits-fp32.npy"
    logits = np.load(path)
    logits[3, 1] += shift
    np.save(path, logits)
    write_sums(bundle_path)
    found = verify(bundle_path)
    assert not found.golden_ok
    assert not found.ok


def test_the_command_prints_the_contract_and_ends_with_0(
    bundle_path: Path, test_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(bundle_path), "--data", str(test_pictures), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == 1.0
    assert found["classes"] == list(CLASSES)
    for key in (
        "accuracy_low",
        "accuracy_high",
        "n",
        "params",
        "macs",
        "size_bytes",
        "golden_ok",
        "peak_activation_bytes",
    ):
        assert found[key] is not None
    Verified.model_validate(found)


def test_the_command_ends_with_1_for_a_flipped_byte(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bundle_path / "model.onnx"
    content = bytearray(model.read_bytes())
    content[400] ^= 1
    model.write_bytes(content)
    assert run(["verify", str(bundle_path)]) == 1
    assert "model.onnx" in capsys.readouterr().err


def test_the_command_ends_with_1_for_a_failed_check(tmp_path: Path, test_pictures: Path) -> None:
    path = write_bundle(tmp_path / "b", accuracy={"accuracy": 0.2, "n": 12})
    assert run(["verify", str(path), "--data", str(test_pictures)]) == 1
