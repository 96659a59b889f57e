"""Every method that changes a file: smaller, the same input and output, and the runtime computes what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest

from flyweight.compress.files import FILES
from flyweight.compress.files.context import FileContext, answers
from flyweight.compress.files.int8 import gates, heavy_nodes, named, sensitivity
from flyweight.compress.files.palette import cluster, packed
from flyweight.compress.files.variant import Conditions, checked, make_file, try_file
from flyweight.compress.step import parse_step
from flyweight.data.dataset import Dataset
from flyweight.errors import CompressError, ExportError
from flyweight.export.bundle import NewVariant, add_file
from flyweight.export.onnx import export_untrained
from flyweight.measure.trial import run_trial
from flyweight.measure.verify import verify
from flyweight.models.architecture import Architecture
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.operators import computed, heavy_in_float, left_in_float, operators

STEPS = {"int8": "int8:images=64,keep=none", "fp16": "fp16", "palette": "palette:least=128"}
QUIET = Conditions(timing="none", margin=0.2)


def test_every_method_of_the_family_is_in_the_suite() -> None:
    assert set(STEPS) == set(FILES)


@pytest.mark.parametrize("method", [*STEPS, "palette4"])
def test_it_is_smaller_counted_alike_and_computed_as_it_says(method: str, bundle: Bundle, few: Dataset) -> None:
    step = parse_step(STEPS.get(method, "palette:bits=4,least=128"))
    made = make_file(step, bundle, few)
    assert len(made.content) < 0.8 * bundle.variant().size_bytes
    parity = checked(made, FileContext(few, bundle, bundle.variant()))
    assert parity.holds
    before, after = count(bundle.variant().file), count(made.content)
    assert (after.params, after.macs) == (before.params, before.macs)
    images = bundle.golden(bundle.variant())[0]
    moved = np.abs(answers(made.content, images) - answers(bundle.variant().file, images)).max()
    assert moved < {"fp16": 0.02, "palette": 0.2, "int8": 1.0, "palette4": 2.0}[method]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_palette_of_a_file_in_an_older_opset_answers_as_that_of_a_newer(
    bits: int, bundle: Bundle, few: Dataset, tmp_path: Path
) -> None:
    step = parse_step(f"palette:bits={bits},least=128")
    file = tmp_path / "older.onnx"
    onnx.save(onnx.version_converter.convert_version(onnx.load(bundle.variant().file), 15), file)
    older = replace(bundle, variants={"fp32": replace(bundle.variant(), file=file)})
    made = make_file(step, older, few)
    assert onnx.load_model_from_string(made.content).opset_import[0].version == 15
    images = bundle.golden(bundle.variant())[0]
    assert np.allclose(answers(made.content, images), answers(make_file(step, bundle, few).content, images), atol=1e-4)


def test_a_variant_that_ships_verifies_and_says_what_it_is(bundle: Bundle, few: Dataset, tmp_path: Path) -> None:
    found = try_file(parse_step(STEPS["palette"]), bundle, few, tmp_path / "out", conditions=QUIET, default=True)
    assert found.trial.ship, found.trial.because
    assert found.bundle.default == "palette8"
    assert verify(found.bundle.path).ok
    assert found.bundle.provenance["variants"]["palette8"]["trial"]["ship"] is True
    assert "palette8, the default" in (found.bundle.path / "card.md").read_text()


def test_int8_that_was_not_timed_does_not_ship(bundle: Bundle, few: Dataset, tmp_path: Path) -> None:
    found = try_file(parse_step(STEPS["int8"]), bundle, few, tmp_path / "out", conditions=QUIET)
    assert not found.trial.ship
    assert "nothing was timed" in found.trial.verdict()
    assert not (tmp_path / "out").exists()
    assert found.trial.after.operators["int8"] >= 8
    kept = try_file(parse_step(STEPS["int8"]), bundle, few, tmp_path / "out", conditions=QUIET, anyway=True)
    assert (kept.bundle.default, sorted(kept.bundle.variants)) == ("fp32", ["fp32", "int8"])
    assert verify(kept.bundle.path, variant="int8").ok


@pytest.mark.parametrize("how", ["percentile", "entropy"])
def test_the_other_calibrations_give_files_that_answer_alike(how: str, bundle: Bundle, few: Dataset) -> None:
    made = make_file(parse_step(f"int8:images=64,keep=none,calibration={how}"), bundle, few)
    images = bundle.golden(bundle.variant())[0]
    first = answers(bundle.variant().file, images).argmax(axis=1)
    assert (answers(made.content, images).argmax(axis=1) == first).mean() > 0.8


def test_layers_that_are_kept_stay_in_float_and_are_listed(bundle: Bundle, few: Dataset, tmp_path: Path) -> None:
    made = make_file(parse_step("int8:images=64,keep=first+last"), bundle, few)
    assert len(made.kept) == 2
    (tmp_path / "kept.onnx").write_bytes(made.content)
    found = operators(tmp_path / "kept.onnx", "onnxruntime")
    assert 1 <= len(heavy_in_float(found)) <= 2
    assert computed(found)["int8"] > 4
    assert left_in_float(found, made.kept_weights) == ()
    assert len(left_in_float(found)) == 1  # the first; the last gives the logits


def test_another_layer_in_float_than_those_that_were_kept_is_refused(bundle: Bundle, few: Dataset) -> None:
    kept = make_file(parse_step("int8:images=64,keep=first"), bundle, few)
    checked(kept, FileContext(few, bundle, bundle.variant()))
    with pytest.raises(ExportError, match=r"computes 1 of \d+ layers of the int8 file in float that were to be int8"):
        checked(replace(kept, kept_weights=("another",)), FileContext(few, bundle, bundle.variant()))


def labelled_int8(bundle: Bundle, few: Dataset, folder: Path) -> Bundle:
    """Return the bundle with its float file once more, which says of itself that it is int8."""
    file = folder / "model-int8.onnx"
    file.write_bytes(bundle.variant().file.read_bytes())
    golden = bundle.golden(bundle.variant())[1]
    parity = checked(make_file(parse_step("fp16"), bundle, few), FileContext(few, bundle, bundle.variant()))
    return add_file(
        bundle, folder / "b", NewVariant("int8", (file,), "onnx", "int8", "onnxruntime", "fp32", golden, parity, {})
    )


def test_a_float_file_that_says_it_is_int8_does_not_ship(bundle: Bundle, few: Dataset, tmp_path: Path) -> None:
    liar = labelled_int8(bundle, few, tmp_path)
    found = run_trial((liar, "fp32"), (liar, "int8"), few, promises=(), margin=0.3, timing="none")
    assert found.after.operators["int8"] == 1  # the cast of the image
    assert not found.ship
    assert f"multiplies in float in all {found.after.layers} layers" in found.verdict()


def test_a_float_file_is_computed_in_float_throughout(bundle: Bundle) -> None:
    found = operators(bundle.variant().file, "onnxruntime")
    assert "int8" not in {one.dtype for one in found if one.heavy}
    assert len(heavy_in_float(found)) == sum(one.heavy for one in found) > 5


def test_the_most_sensitive_layer_comes_first(bundle: Bundle, few: Dataset) -> None:
    from flyweight.compress.files.int8 import Int8, calibrated

    context = FileContext(few, bundle, bundle.variant())
    images, _ = context.training_images(32)
    model = context.model()
    order = sensitivity(model, calibrated(model, images, Int8()), images, answers(bundle.variant().file, images))
    assert sorted(name for name, _ in order) == sorted(heavy_nodes(model))
    moved = [value for _, value in order]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 0


@pytest.mark.slow
def test_the_gates_of_squeeze_and_excitation_are_found(tmp_path: Path) -> None:
    file = export_untrained(Architecture("mobilenetv3_small_050", 5, 3, 32), tmp_path / "m.onnx")
    model = onnx.load(file)
    assert len(gates(model)) == 18  # nine blocks with two layers each
    assert set(gates(model)).isdisjoint({heavy_nodes(model)[0], heavy_nodes(model)[-1]})


def test_layers_taken_back_in_vain_are_told_in_the_notes(bundle: Bundle, few: Dataset) -> None:
    step = parse_step("int8:images=64")
    vain = make_file(step, bundle, few, margin=0.0001)  # which no few hundred images can show
    assert "margin was not reached with 25% of the layers" in vain.said[-1]
    fine = make_file(step, bundle, few, margin=0.2)
    assert (vain.facts["tried"][0]["flips"] <= 0.02) == (fine.kept == ())
    assert all("not reached" not in said for said in fine.said)


def test_a_layer_to_keep_that_is_not_there_is_refused(bundle: Bundle, few: Dataset) -> None:
    with pytest.raises(CompressError, match="no layer 'nothing' to keep"):
        named(FileContext(few, bundle, bundle.variant()).model(), "first+nothing")


def test_a_file_that_is_no_float_onnx_is_refused(bundle: Bundle, few: Dataset) -> None:
    levels = replace(bundle.variant(), precision="int8")
    with pytest.raises(CompressError, match="only a float onnx file"):
        FileContext(few, bundle, levels).model()


def test_a_palette_holds_every_value_where_there_are_no_more_than_its_size() -> None:
    values = np.array([0.5, -1.0, 0.25, 0.5, -1.0] * 20, np.float32)
    found, indices = cluster(values, 16)
    assert np.allclose(found[indices], values, atol=1e-6)


def test_a_palette_is_as_good_as_scikit_learns_k_means() -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    found, indices = cluster(values, 16)
    ours = float(np.square(found[indices] - values).sum())
    theirs = KMeans(16, n_init=3, random_state=0).fit(values[:, None]).inertia_
    assert ours < 1.1 * theirs


def test_indices_of_four_bits_lie_two_to_a_byte() -> None:
    indices = np.array([1, 2, 3, 4, 5], np.uint8)
    bytes_ = packed(indices, 4)
    assert len(bytes_) == 3
    assert np.array_equal(np.concatenate([bytes_ & 15, bytes_ >> 4])[:5], indices)
