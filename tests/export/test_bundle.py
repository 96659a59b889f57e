from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from flyweight.errors import BundleError, ExportError, OutputError
from flyweight.export.bundle import copy_bundle, record_accuracy, record_device, with_threshold, write_bundle
from flyweight.export.parity import file_logits, torch_logits
from flyweight.export.trained import begun_with
from flyweight.models.architecture import Architecture
from flyweight.models.weights import load_weights, stored
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


DEVICE = {"measured": {"fp32, 1 thread(s)": {"p50_ms": 3.0}}, "conditions": {"cpu": "Cortex-A72"}}


@pytest.mark.parametrize(
    "write",
    [
        lambda bundle, out: record_accuracy(bundle, {"top1": 0.75, "n": 4}, out),
        lambda bundle, out: record_device(bundle, "pi4", DEVICE, out),
        lambda bundle, out: with_threshold(bundle, 0.5, {"part": "val", "thresholds": [], "unlike": []}, out),
        lambda bundle, out: copy_bundle(bundle, out, name="other"),
    ],
    ids=["accuracy", "device", "threshold", "copy"],
)
def test_whatever_writes_a_bundle_writes_an_archive_where_the_name_is_one(
    write: Callable[[Bundle, Path], Bundle], bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "b.zip"
    write(bundle, out)
    assert out.is_file()
    write(Bundle.open(out), out)  # in place, too
    assert zipfile.is_zipfile(out)
    assert Bundle.open(out).variant().file.read_bytes() == bundle.variant().file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


def test_a_folder_is_not_replaced_by_an_archive_of_its_name(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "b.zip").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        copy_bundle(bundle, tmp_path / "b.zip")


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


def test_the_card_states_counts_data_origin_and_that_the_file_was_not_tested(bundle: Bundle) -> None:
    card = (bundle.path / "card.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "image-classification"
    for words in ("This file was not tested", "MACs of one image", "fingerprint", "tiny_cnn"):
        assert words in card
    assert r"`cat | dog`" in card


CLASS = {"name": "ant", "n": 4, "recall": 0.75, "recall_low": 0.3, "recall_high": 0.95, "precision": 1.0, "f1": 0.857}


def test_the_card_has_a_row_for_each_class(tmp_path: Path) -> None:
    rows = [CLASS, {**CLASS, "name": "bee | wasp", "recall": None, "precision": None, "f1": None}]
    write_bundle(tmp_path / "b", **_facts(accuracy={"top1": 0.75, "n": 4, "per_class": rows}))
    card = (tmp_path / "b" / "card.md").read_text()
    assert "| ant | 4 | 0.750 [0.300, 0.950] | 1.000 | 0.857 |" in card
    assert r"| bee \| wasp | 4 | – | – | – |" in card


def test_of_many_classes_the_card_shows_the_worst(tmp_path: Path) -> None:
    rows = [{**CLASS, "name": f"c{number}", "recall": number / 60} for number in range(60)]
    write_bundle(tmp_path / "b", **_facts(accuracy={"top1": 0.75, "n": 4, "per_class": rows}))
    card = (tmp_path / "b" / "card.md").read_text()
    assert "| c0 |" in card
    assert "| c59 |" not in card
    assert "The 50 worst of 60 classes" in card


def test_the_card_has_the_hash_of_every_file_but_itself(bundle: Bundle) -> None:
    card = (bundle.path / "card.md").read_text()
    files = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    for name in files - {"card.md", "SHA256SUMS"}:
        assert f"| `{name}` | `{hashlib.sha256((bundle.path / name).read_bytes()).hexdigest()}` |" in card


def test_the_card_says_what_it_is_for_and_how_it_is_calibrated(bundle: Bundle) -> None:
    card = (bundle.path / "card.md").read_text()
    assert "Tells which one of 3 classes a whole picture like those of insects belongs to" in card
    assert "softmax of logits divided by 1.5" in card


def test_the_card_gives_licence_and_source_of_the_weights_that_training_began_with(tmp_path: Path) -> None:
    begun = {"name": "start", "licence": "CC-BY-NC-4.0", "source": "https://example.org/w", "data": "photos"}
    provenance = {"data": {"name": "insects"}, "pretrained": begun}
    write_bundle(tmp_path / "b", **_facts(provenance=provenance))
    card = (tmp_path / "b" / "card.md").read_text()
    assert "| licence | CC-BY-NC-4.0 |" in card
    assert "| source | https://example.org/w |" in card


@pytest.mark.parametrize(
    ("provenance", "said"),
    [({}, "Not recorded whether"), ({"pretrained": None}, "The recipe names no pretrained weights")],
)
def test_the_card_claims_no_more_about_pretrained_weights_than_is_known(
    tmp_path: Path, provenance: dict[str, None], said: str
) -> None:
    write_bundle(tmp_path / "b", **_facts(provenance=provenance))
    assert said in (tmp_path / "b" / "card.md").read_text()


def test_an_export_records_whose_weights_it_began_with() -> None:
    name = next(name for name, _ in stored())
    found, shipped = begun_with(name), load_weights(name)
    assert found is not None
    assert (found["licence"], found["source"]) == (shipped.licence, shipped.source)
    assert len(found["sha256"]) == 64
    lost = begun_with("no-such-weights")
    assert lost is not None
    assert "not known" in lost["licence"]
    assert begun_with(None) is None


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
