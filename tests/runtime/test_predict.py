from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax as reference_softmax
from tests.runtime.tiny_bundle import CLASSES, model, picture, write_bundle

from flyweight.errors import BundleError, DataError
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Predictor, find_images


def cli(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "flyweight", *map(str, arguments)]
    return subprocess.run(line, input=stdin, capture_output=True, check=False)


def test_every_picture_is_given_its_class(bundle_path: Path, pictures: Path) -> None:
    found = list(Predictor(bundle_path).predict(find_images([pictures])))
    assert [one.top[0][0] for one in found] == [Path(one.source).parent.name for one in found]
    assert len(found) == 12


def test_confidence_is_the_softmax_of_logits_over_the_temperature(bundle_path: Path) -> None:
    predictor = Predictor(bundle_path)
    image = picture(1, contrast=20)
    logits = predictor.logits(predictor.load(image)[None])
    expected = reference_softmax(logits[0].astype(float) / 2.0)
    (found,) = predictor.predict([image], top_k=3)
    assert {name: pytest.approx(value) for name, value in found.top} == dict(zip(CLASSES, expected, strict=True))
    assert [value for _, value in found.top] == sorted(expected, reverse=True)


def test_logits_do_not_depend_on_the_batch(bundle_path: Path) -> None:
    predictor = Predictor(bundle_path)
    images = np.stack([predictor.load(picture(i % 3, seed=i)) for i in range(130)])
    one_by_one = np.concatenate([predictor.logits(image[None]) for image in images])
    np.testing.assert_allclose(predictor.logits(images), one_by_one, atol=1e-5)


def test_an_unreadable_image_is_named_and_the_rest_is_predicted(bundle_path: Path, pictures: Path) -> None:
    (pictures / "left" / "1.png").write_bytes(b"not an image")
    found = list(Predictor(bundle_path).predict(find_images([pictures])))
    bad = [one for one in found if one.error is not None]
    assert [Path(one.source).name for one in bad] == ["1.png"]
    assert len(found) == 12
    assert all(one.top[0][0] == Path(one.source).parent.name for one in found if one.error is None)


def test_a_batch_of_only_unreadable_images_is_reported(bundle_path: Path) -> None:
    (found,) = Predictor(bundle_path).predict([b"nothing"])
    assert isinstance(found.error, DataError)


@pytest.mark.parametrize(("threshold", "rejected"), [(0.5, True), (0.3, False)])
def test_an_answer_below_the_threshold_is_rejected(tmp_path: Path, threshold: float, rejected: bool) -> None:
    predictor = Predictor(write_bundle(tmp_path / "b", reject_threshold=threshold))
    (found,) = predictor.predict([np.full((12, 12, 3), 80, np.uint8)])
    assert found.rejected is rejected


def test_equal_confidence_goes_to_the_class_that_comes_first(bundle_path: Path) -> None:
    (found,) = Predictor(bundle_path).predict([np.zeros((12, 12, 3), np.uint8)])
    assert [name for name, _ in found.top] == list(CLASSES)


def test_a_model_of_another_size_is_refused(bundle_path: Path) -> None:
    from flyweight.runtime.hashes import write_sums

    content = model(size=24).SerializeToString()
    (bundle_path / "model.onnx").write_bytes(content)
    manifest = json.loads((bundle_path / "bundle.json").read_text())
    manifest["variants"]["fp32"]["size_bytes"] = len(content)
    (bundle_path / "bundle.json").write_text(json.dumps(manifest))
    write_sums(bundle_path)
    with pytest.raises(BundleError, match=r"\(3, 24, 24\)"):
        Predictor(Bundle.open(bundle_path))


def test_an_unknown_backend_is_refused_with_the_known_ones(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match=r"(?s)'onnx'.*onnxruntime"):
        Predictor(bundle_path, backend="onnx")


def test_a_folder_without_images_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        list(find_images([tmp_path]))


def test_the_command_prints_one_json_line_per_image(bundle_path: Path, pictures: Path) -> None:
    done = cli("predict", bundle_path, pictures, "--json", "-k", 2)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(rows) == 12
    assert all(row["class"] == Path(row["source"]).parent.name and len(row["top"]) == 2 for row in rows)


def test_the_command_reads_an_image_from_standard_input(bundle_path: Path, pictures: Path) -> None:
    done = cli("predict", bundle_path, "-", "--json", stdin=(pictures / "right/0.png").read_bytes())
    assert json.loads(done.stdout)["class"] == "right"


def test_the_command_ends_with_1_after_predicting_what_it_could(bundle_path: Path, pictures: Path) -> None:
    (pictures / "bad.png").write_bytes(b"x")
    done = cli("predict", bundle_path, pictures, "--json")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 13
    assert b"bad.png" in done.stdout
    assert b"Traceback" not in done.stderr


def test_small_images_are_predicted_at_hundreds_a_second(bundle_path: Path, tmp_path: Path) -> None:
    import time

    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(2000):
        Image.fromarray(picture(i % 3, 28, seed=i)).save(folder / f"{i:05}.png", compress_level=1)
    predictor = Predictor(bundle_path)
    start = time.process_time()
    assert sum(1 for _ in predictor.predict(find_images([folder]))) == 2000
    assert time.process_time() - start < 6  # of the processor; about 1 s when idle
