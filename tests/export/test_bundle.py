from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from flyweight.errors import BundleError, ExportError, OutputError
from flyweight.export.bundle import write_bundle
from flyweight.export.parity import file_logits, torch_logits
from flyweight.models.architecture import Architecture
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.preprocess import Preprocess
from models.settled import pixels, settle

ARCHITECTURE = Architecture("tiny_cnn_4", 3, 1, 16, mean=(0.3,), std=(0.25,))


def _facts(**changes: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "network": settle(ARCHITECTURE.build(), 1, 16),
        "architecture": ARCHITECTURE,
        "classes": ("cat | dog", "bee", "ant"),
        "preprocess": Preprocess(16, 1, mean=(0.3,), std=(0.25,)),
        "temperature": 1.5,
        "golden_images": pixels(32, 1, 16),
        "split_rule": {"salt": "fw", "val_fraction": 0.1},
        "provenance": {"data": {"name": "insects", "fingerprint": "abc"}, "seed": 3},
        "recipe_yaml": "name: tiny\n",
        **changes,
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("out") / "insects", **_facts())


def test_a_written_bundle_opens_with_everything_it_was_given(bundle: Bundle) -> None:
    assert bundle.name == "insects"
    assert bundle.classes == ("cat | dog", "bee", "ant")
    assert bundle.preprocess == Preprocess(16, 1, mean=(0.3,), std=(0.25,))
    assert (bundle.temperature, bundle.reject_threshold) == (1.5, None)
    assert bundle.split == {"salt": "fw", "val_fraction": 0.1}
    assert bundle.provenance["data"]["fingerprint"] == "abc"
    assert (bundle.path / "recipe.resolved.yaml").read_text() == "name: tiny\n"


def test_the_variant_says_its_size_and_its_tolerance(bundle: Bundle) -> None:
    variant = bundle.variant()
    assert variant.size_bytes == variant.file.stat().st_size
    assert 0 < variant.tolerance < 0.1
    assert variant.accuracy is None


def test_the_golden_logits_are_those_of_the_trained_network_and_the_file_gives_them(bundle: Bundle) -> None:
    images, logits = bundle.golden(bundle.variant())
    np.testing.assert_array_equal(images, pixels(32, 1, 16))
    np.testing.assert_allclose(logits, torch_logits(_facts()["network"], images), atol=1e-6)
    assert np.abs(file_logits(bundle.variant().file, images) - logits).max() <= bundle.variant().tolerance


def test_one_flipped_byte_is_found(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "b", **_facts())
    content = bytearray(written.variant().file.read_bytes())
    content[len(content) // 2] ^= 1
    written.variant().file.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Bundle.open(tmp_path / "b")


def test_a_zip_opens_as_the_same_bundle(tmp_path: Path, bundle: Bundle) -> None:
    zipped = write_bundle(tmp_path / "insects.zip", **_facts())
    assert zipped.name == "insects"
    assert zipped.variant().file.read_bytes() == bundle.variant().file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["insects.zip"]


def test_writing_again_replaces_the_bundle_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", **_facts())
    again = write_bundle(tmp_path / "b", **_facts(temperature=2.0))
    assert again.temperature == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").write_text("years of work")
    with pytest.raises(OutputError, match="thesis"):
        write_bundle(tmp_path / "thesis", **_facts())
    assert (tmp_path / "thesis" / "final.tex").read_text() == "years of work"


def test_a_failure_half_way_keeps_the_earlier_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", **_facts())

    def fail(path: Path) -> dict[str, float]:
        raise ExportError(f"measuring {path.name} failed", do="nothing")

    with pytest.raises(ExportError, match=r"measuring model\.onnx failed"):
        write_bundle(tmp_path / "b", **_facts(accuracy=fail))
    assert Bundle.open(tmp_path / "b").temperature == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_accuracy_may_be_measured_on_the_shipped_file(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "b", **_facts(accuracy=lambda path: {"accuracy": 0.75, "n": path.stat().st_size}))
    assert written.variant().accuracy == {"accuracy": 0.75, "n": written.variant().size_bytes}
    card = (tmp_path / "b" / "card.md").read_text()
    assert "| accuracy | 0.75 |" in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.75}]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "insects"


def test_the_card_states_counts_data_origin_and_that_the_test_part_is_sealed(bundle: Bundle) -> None:
    card = (bundle.path / "card.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "image-classification"
    for words in ("Not measured: the test part has not been opened", "MACs of one image", "fingerprint", "tiny_cnn"):
        assert words in card
    assert r"`cat | dog`" in card


def test_further_files_are_hashed_like_the_others(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", **_facts(extras={"training/notes.txt": b"hello"}))
    (tmp_path / "b" / "training" / "notes.txt").write_text("hullo")
    with pytest.raises(BundleError, match=r"training/notes\.txt"):
        Bundle.open(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("a", "b")}, "2 class names for 3 logits"),
        ({"golden_images": pixels(32, 3, 16)}, r"\(32, 3, 16, 16\)"),
        ({"golden_images": pixels(32, 1, 16).astype(np.float32)}, "float32"),
        ({"golden_images": pixels(32, 1, 16)[:0]}, r"\(0, 1, 16, 16\)"),
        ({"preprocess": Preprocess(20, 1, mean=(0.3,), std=(0.25,))}, r"\(1, 20, 20\)"),
        ({"preprocess": Preprocess(16, 1, mean=(0.4,), std=(0.25,))}, r"\(0\.4,\)"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        write_bundle(tmp_path / "b", **_facts(**change))
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_nans_does_not_ship(tmp_path: Path) -> None:
    facts = _facts()
    with torch.no_grad():
        next(facts["network"].parameters()).fill_(float("nan"))
    with pytest.raises(ExportError, match="disagrees"):
        write_bundle(tmp_path / "b", **facts)
    assert list(tmp_path.iterdir()) == []


def test_a_reproducible_build_sets_the_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    write_bundle(tmp_path / "b", **_facts())
    assert json.loads((tmp_path / "b" / "bundle.json").read_text())["created"] == "1970-01-02T00:00:00+00:00"
