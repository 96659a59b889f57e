from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.tiny_bundle import CLASSES, write_bundle, write_pictures

from flyweight.cli import run
from flyweight.errors import BundleError, DataError
from flyweight.measure.latency import Plan, time_specs
from flyweight.runtime import process
from flyweight.runtime.bundle import Bundle, write_sums
from flyweight.runtime.preprocess import Preprocess, decode
from flyweight.runtime.timing import MODEL, Effort, Spec


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.int16, np.uint32])
def test_integers_of_another_width_are_refused_and_never_turned_black(kind: type) -> None:
    with pytest.raises(DataError, match="uint8"):
        decode(np.full((2, 2, 3), 200, kind), 3)


def test_postscript_is_refused_before_an_interpreter_is_started_on_it() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage"
    with pytest.raises(DataError, match="not an image of a known format"):
        decode(eps, 3)


def test_a_name_with_a_nul_is_a_data_error() -> None:
    with pytest.raises(DataError, match="null"):
        decode("a\0b.png", 3)


@pytest.mark.parametrize(
    "wrong", [{"image_size": "12"}, {"image_size": True}, {"mean": 0.5}, {"std": [float("nan")] * 3}, {"channels": "3"}]
)
def test_a_manifest_with_values_of_the_wrong_type_is_a_bundle_error(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = write_bundle(tmp_path / "b", preprocess={**Preprocess(12).to_json(), **wrong})
    with pytest.raises(BundleError, match=next(iter(wrong))):
        Bundle.open(path)


def test_a_class_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'left' stands twice"):
        Bundle.open(write_bundle(tmp_path / "b", classes=["left", "left", "right"]))


def test_golden_images_that_are_one_number_are_refused(bundle_path: Path) -> None:
    np.save(bundle_path / "golden/images.npy", np.uint8(3))
    write_sums(bundle_path)
    bundle = Bundle.open(bundle_path)
    with pytest.raises(BundleError, match="golden vectors"):
        bundle.golden(bundle.variant())


def test_a_damaged_lzma_archive_is_refused_or_harmless(bundle_path: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as file:
        for path in sorted(bundle_path.rglob("*")):
            file.write(path, path.relative_to(bundle_path).as_posix())
    content = archive.read_bytes()
    for position in range(60, 400, 7):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        archive.write_bytes(damaged)
        with contextlib.suppress(BundleError):  # some bytes, a date say, mean nothing
            assert Bundle.open(archive).classes == CLASSES


def test_an_error_in_an_archive_names_the_archive_not_the_folder_it_was_unpacked_into(
    bundle_path: Path, tmp_path: Path
) -> None:
    (bundle_path / "card.md").write_text("changed")
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(bundle_path.rglob("*")):
            file.write(path, path.relative_to(bundle_path).as_posix())
    with pytest.raises(BundleError) as caught:
        Bundle.open(archive)
    assert str(archive) in caught.value.what
    assert "mine.zip" in caught.value.do
    assert "flyweight-bundle-" not in str(caught.value)


def test_an_empty_folder_is_refused_before_the_first_answer(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_pictures(tmp_path / "p", per_class=30)  # more than one batch
    (tmp_path / "empty").mkdir()
    assert run(["predict", str(bundle_path), str(pictures), str(tmp_path / "empty")]) == 1
    assert capsys.readouterr().out == ""


def test_a_model_that_takes_too_long_is_an_error_the_user_can_act_on(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TIMEOUT_SECONDS", 0.05)
    with pytest.raises(BundleError, match="did not finish"):
        process.run_module("flyweight.runtime.memory", [str(bundle_path / "model.onnx")])


def test_a_process_killed_for_memory_is_an_error_the_user_can_act_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(BundleError, match="want of memory"):
        process.run_module("flyweight.runtime.memory", [])


def test_batches_that_would_take_too_long_are_left_out() -> None:
    import time

    from flyweight.runtime.timing import _throughputs

    def slow(images: np.ndarray) -> np.ndarray:
        time.sleep(0.02 * len(images))
        return images

    spec = Spec("x", batches=(1, 4, 64), effort=Effort(3, 1, 0.1, 0.5, 0.05))
    assert [row["batch"] for row in _throughputs(slow, np.zeros((4, 1), np.uint8), spec)] == [1, 4]


def test_a_process_that_was_kept_off_the_processor_is_said_to_be_disturbed(tmp_path: Path) -> None:
    import os
    import subprocess

    file = tmp_path / "w.json"
    file.write_text(json.dumps({"milliseconds": 5.0}))
    plan = Plan(2, Effort(40, 10, 0.4, 1.0, 0.1), False)
    spin = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(spin) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        found = time_specs({"w": Spec(str(file), backend="busy-wait")}, plan)["w"][MODEL]
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert found.disturbed
    assert found.cpu_share is not None
    assert found.cpu_share < 0.7
