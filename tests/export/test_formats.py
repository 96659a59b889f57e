"""Every format in every precision, the same questions; a new one is asked them as soon as it is listed."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flyweight.cli import run as cli
from flyweight.compress.exit import Exit
from flyweight.compress.exit import with_exit as put_exit
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.errors import BundleError, ExportError, MissingExtraError, OrderError
from flyweight.export import export
from flyweight.export.convert import Converted, convert, open_bundle, weights_of
from flyweight.export.formats import FORMATS, Original
from flyweight.export.formats.format import formats_that_can, need
from flyweight.export.formats.onnx import OLDEST, newest
from flyweight.export.formats.torchexport import exported, lost
from flyweight.export.images import RealImages, real_images
from flyweight.export.parity import SAME_CLASS
from flyweight.measure.verify import verify_bundle
from flyweight.runtime.backends import ENGINES
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.environment import cpu_name
from flyweight.runtime.hashes import write_sums
from flyweight.runtime.operators import heavy_in_float, operators
from flyweight.runtime.predict import Predictor
from flyweight.train.trained import Trained

BUNDLES = Path(__file__).parents[2] / "bundles"
BUNDLE = BUNDLES / "tiny-fashion-mnist"  # trained on the data set that the sample is a part of
CASES = [(one.name, precision) for one in FORMATS.values() for precision in one.precisions]
# Their imports or torch.export alone take seconds.
HEAVY = {("openvino", "int8"), ("executorch", "fp32"), ("executorch", "int8"), ("torch-export", "fp32")}


def bf16_here() -> bool:
    """True where the processor computes in bfloat16."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.read_text("utf-8").split()))


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_data("sample")


@pytest.fixture(scope="module")
def images(sample: Dataset) -> RealImages:
    return real_images(Bundle.open(BUNDLE), sample)


@pytest.fixture(scope="module")
def test_images(sample: Dataset) -> np.ndarray:
    """The 1,000 test images, (N, 1, 28, 28) uint8, which no conversion sees."""
    assert sample.parts is not None
    pixels = np.stack([np.asarray(sample.images.read(int(i))) for i in np.flatnonzero(sample.parts == "test")])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, marks=[pytest.mark.slow] if case in HEAVY else [], id="-".join(case)) for case in CASES],
)
def made(request: pytest.FixtureRequest, images: RealImages, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    name, precision = request.param
    if precision == "bf16" and not bf16_here():
        pytest.skip(f"{cpu_name()} does not compute in bfloat16, and the conversion is refused there")
    out = tmp_path_factory.mktemp("formats") / "bundle"
    return convert(Bundle.open(BUNDLE), name, out, precision=precision, images=images)


def test_it_agrees_with_the_float_file_on_two_thousand_real_images(made: Converted) -> None:
    assert made.parity.n == 2000
    assert made.parity.top1_agreement >= SAME_CLASS[made.variant.precision]
    if made.variant.precision == "fp32":
        assert made.parity.max_abs_error <= made.parity.tolerance


def test_it_agrees_on_the_thousand_test_images_too(made: Converted, test_images: np.ndarray) -> None:
    found = Predictor(made.bundle, variant=made.variant.name).logits(test_images)
    expected = Predictor(made.bundle, variant="fp32").logits(test_images)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= SAME_CLASS[made.variant.precision]
    if made.variant.precision == "fp32":
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_verify_confirms_it_and_counts_the_network_it_came_from(made: Converted) -> None:
    found = verify_bundle(made.bundle, "sample", made.variant.name)
    assert found.ok
    assert (found.format, found.backend) == (made.variant.format, made.variant.backend)
    assert (found.golden_n, found.n) == (32, 1000)
    assert found.params == verify_bundle(made.bundle, None, made.variant.source).params
    assert found.accuracy is not None
    assert found.accuracy > 0.9


def test_a_changed_byte_of_any_of_its_files_is_refused_by_name(made: Converted, tmp_path: Path) -> None:
    for file in (made.variant.file, *made.variant.beside):
        copy = tmp_path / file.name
        shutil.copytree(made.bundle.path, copy)
        content = bytearray((copy / file.name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / file.name).write_bytes(content)
        with pytest.raises(BundleError, match=file.name.replace(".", r"\.")):
            Bundle.open(copy)


def test_predict_answers_from_image_files_as_the_float_file_does(
    made: Converted, test_images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, image in enumerate(test_images[:20]):
        Image.fromarray(image[0]).save(tmp_path / f"{number:02}.png")
    classes = []
    for variant in (made.variant.name, "fp32"):
        assert cli(["predict", str(made.bundle.path), str(tmp_path), "--variant", variant, "--json"]) == 0
        classes.append([json.loads(line)["class"] for line in capsys.readouterr().out.splitlines()])
    assert len(classes[0]) == 20
    assert sum(a == b for a, b in zip(*classes, strict=True)) >= 18


def test_any_number_of_images_gives_the_same_logits(made: Converted, test_images: np.ndarray) -> None:
    backend = Predictor(made.bundle, variant=made.variant.name).backend
    together = np.array(backend.run(test_images[:7]))
    alone = np.concatenate([np.array(backend.run(test_images[i : i + 1])) for i in range(7)])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=made.variant.tolerance)


def test_the_card_and_the_manifest_say_how_it_was_made(made: Converted) -> None:
    own = made.bundle.provenance["variants"][made.variant.name]
    card = (made.bundle.path / "card.md").read_text("utf-8")
    source = made.variant.precision if made.variant.format == "c" else "fp32"
    assert own["converted_from"] == made.variant.source == source
    assert own["tool"] in card
    assert f"the {made.variant.name} file and the {made.variant.source} file" in card
    assert all(layer in card for layer in own["in_float"])


def test_the_file_itself_carries_classes_and_preprocessing_where_the_format_says_so(made: Converted) -> None:
    content = made.variant.file.read_bytes()
    if made.variant.format == "torch-export":
        import zipfile

        with zipfile.ZipFile(made.variant.file) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist() if "/extra/" in name)
    # C says how a picture is fitted in its own words.
    inside = b"Ankle boot" in content and (b"image_size" in content or made.variant.format == "c")
    assert inside == FORMATS[made.variant.format].carries.startswith("in the file")


def test_a_lower_precision_is_what_the_file_holds(made: Converted) -> None:
    if made.variant.precision == "fp32":
        assert made.written.in_float == ()
        return
    assert made.written.layers > len(made.written.in_float)
    asked = operators(made.variant.file, made.variant.backend)
    if asked:
        assert len(heavy_in_float(asked)) == (
            made.written.layers if made.variant.precision == "bf16" else len(made.written.in_float)
        )
    if made.variant.format == "openvino":
        weights = made.variant.beside[0].stat().st_size
        assert weights < made.bundle.variant("fp32").size_bytes * {"bf16": 0.55, "int8": 0.5}[made.variant.precision]
    elif made.variant.format == "c":  # a text, in which a weight takes as many digits as it takes
        weights = re.findall(r"static const (\w+) \w+\[(\d+)\]", made.variant.file.read_text("utf-8"))
        held = {kind: sum(int(count) for of, count in weights if of == kind) for kind, _ in weights}
        assert held["int8_t"] > 10 * held["float"]
    else:
        assert made.variant.size_bytes < made.bundle.variant("fp32").size_bytes


@pytest.mark.slow
def test_measure_times_it(made: Converted, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["measure", str(made.bundle.path), "--variant", made.variant.name, "--quick", "--json"]
    assert cli(arguments) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["latency_p50_ms"] > 0
    assert found["size_bytes"] == made.variant.size_bytes


def test_every_format_names_a_backend_that_reads_its_files() -> None:
    for one in FORMATS.values():
        assert one.suffix in ENGINES[one.backend].reads
        assert set(one.calibrated) <= set(one.precisions)


@pytest.fixture
def bare(tmp_path: Path) -> Bundle:
    """A bundle that ships no training weights."""
    shutil.copytree(BUNDLE, tmp_path / "bare", ignore=shutil.ignore_patterns("training"))
    write_sums(tmp_path / "bare")
    return Bundle.open(tmp_path / "bare")


def test_a_run_is_not_converted_but_exported_first() -> None:
    with pytest.raises(OrderError, match=r"(?s)is a run.*flyweight export .*training .*flyweight convert"):
        open_bundle(BUNDLE / "training")


def test_int8_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"--data DATA"):
        convert(Bundle.open(BUNDLE), "litert", tmp_path / "b", precision="int8")


def test_without_data_the_golden_images_are_compared_and_the_card_says_so(tmp_path: Path) -> None:
    done = convert(Bundle.open(BUNDLE), "litert", tmp_path / "b")
    assert done.parity.n == 32
    assert "On 32 images the litert-fp32 file" in (tmp_path / "b/card.md").read_text("utf-8")


def test_a_misspelt_format_and_an_unknown_precision_name_what_there_is(tmp_path: Path) -> None:
    bundle = Bundle.open(BUNDLE)
    with pytest.raises(ExportError, match="use --to litert"):
        convert(bundle, "lite-rt", tmp_path / "b")
    with pytest.raises(ExportError, match="fp32, bf16, int8"):
        convert(bundle, "openvino", tmp_path / "b", precision="int4")


def test_a_format_written_from_torch_asks_for_the_run_where_none_are_shipped(bare: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)ships no training weights.*--run"):
        convert(bare, "torch-export", tmp_path / "b")


def test_the_weights_of_another_run_are_found_out_and_nothing_is_written(bare: Bundle, tmp_path: Path) -> None:
    """Two networks of the same shape, trained on different data: only the logits can tell."""
    with pytest.raises(ExportError, match="disagrees with the float file on 32 images"):
        convert(bare, "torch-export", tmp_path / "b", run=BUNDLES / "tiny-mnist/training")
    assert not (tmp_path / "b").exists()


def test_data_with_other_classes_is_refused(sample: Dataset) -> None:
    other = replace(sample, classes=("x", *sample.classes[1:]))
    with pytest.raises(Exception, match="give the data that the bundle was trained on"):
        real_images(Bundle.open(BUNDLE), other)


def test_no_image_of_the_test_part_is_calibrated_or_compared_on(images: RealImages, test_images: np.ndarray) -> None:
    sealed = {image.tobytes() for image in test_images}
    used = {image.tobytes() for part in (images.calibration, images.parity) for image in part}
    assert len(used & sealed) == 0
    assert len(images.calibration) == 512
    assert {image.tobytes() for image in images.calibration}.isdisjoint(image.tobytes() for image in images.parity)


def test_a_converted_variant_is_replaced_and_an_exported_one_is_not(tmp_path: Path) -> None:
    first = convert(Bundle.open(BUNDLE), "onnx", tmp_path / "b", opset=15, name="old", default=True)
    again = convert(first.bundle, "onnx", tmp_path / "b", opset=14, name="old")
    assert again.bundle.default == "old"
    assert "opset 14" in again.bundle.provenance["variants"]["old"]["tool"]
    with pytest.raises(ExportError, match="exported variant 'int8'"):
        convert(first.bundle, "onnx", tmp_path / "b", opset=15, name="int8")


def test_a_zip_is_converted_to_a_zip(tmp_path: Path) -> None:
    done = convert(Bundle.open(BUNDLE), "litert", tmp_path / "b.zip")
    assert verify_bundle(done.bundle, None, "litert-fp32").ok


@pytest.mark.parametrize(("opset", "written"), [(14, 14), (21, 21)])
def test_the_opset_is_the_one_asked_for(opset: int, written: int, tmp_path: Path) -> None:
    import onnx

    done = convert(Bundle.open(BUNDLE), "onnx", tmp_path / "b", opset=opset)
    assert [one.version for one in onnx.load(done.variant.file).opset_import if not one.domain] == [written]


def test_an_opset_is_for_onnx_alone_and_must_exist(tmp_path: Path) -> None:
    bundle = Bundle.open(BUNDLE)
    with pytest.raises(ExportError, match="says nothing to LiteRT"):
        convert(bundle, "litert", tmp_path / "b", opset=15)
    with pytest.raises(ExportError, match="choose one from 14 to"):
        convert(bundle, "onnx", tmp_path / "b", opset=99)


def test_the_newest_opset_is_what_onnxruntime_loads_and_not_what_onnx_can_write(tmp_path: Path) -> None:
    import onnx

    most = newest()
    assert OLDEST < most <= onnx.defs.onnx_opset_version()
    done = convert(Bundle.open(BUNDLE), "onnx", tmp_path / "b", opset=most)
    assert verify_bundle(done.bundle, None, done.variant.name).ok
    with pytest.raises(ExportError, match=rf"(?s)opset {most + 1} is not offered: ONNX Runtime.*from 14 to {most}"):
        convert(Bundle.open(BUNDLE), "onnx", tmp_path / "b", opset=most + 1)


@pytest.mark.parametrize("name", ["a b/c", "../../evil", "", ".hidden", "a" * 65, "naïve"])
def test_a_name_that_cannot_be_part_of_a_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be the name of a variant"):
        convert(Bundle.open(BUNDLE), "onnx", tmp_path / "b", opset=15, name=name)
    assert list(tmp_path.iterdir()) == []


def test_openvino_names_an_operator_that_neither_it_nor_any_other_knows(tmp_path: Path) -> None:
    import onnx

    bundle = Bundle.open(BUNDLE)
    model = onnx.load(bundle.variant("fp32").file)
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "FusedGemm", "com.example"
    model.opset_import.add(domain="com.example", version=1)
    onnx.save(model, tmp_path / "odd.onnx")
    original = Original(bundle, replace(bundle.variant("fp32"), file=tmp_path / "odd.onnx"), np.empty((0,), np.uint8))
    with pytest.raises(
        ExportError, match=r"(?s)OpenVINO cannot express the operator com\.example\.FusedGemm.*no other format"
    ):
        FORMATS["openvino"].write(original, "fp32", tmp_path / "odd.xml")


@pytest.fixture(scope="module")
def with_exit(sample: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle's own network with an early exit, as a bundle."""
    trained = Trained.load(BUNDLE / "training")
    network, architecture, _ = put_exit(trained, Exit(at=0.6))
    changed = replace(trained, architecture=architecture, weights=network.state_dict())
    return export(changed, sample, tmp_path_factory.mktemp("exit") / "b")


def original_of(bundle: Bundle) -> Original:
    return Original(bundle, bundle.variant("fp32"), np.empty((0,), np.uint8), weights_of(bundle))


def test_the_formats_that_can_are_asked_and_not_listed(with_exit: Bundle, tmp_path: Path) -> None:
    plain = Bundle.open(BUNDLE).variant("fp32").file.read_bytes()
    assert formats_that_can(plain) == list(FORMATS)
    branching = with_exit.variant("fp32").file.read_bytes()
    assert formats_that_can(branching) == ["onnx", "openvino"]
    for name in ("litert", "c"):
        with pytest.raises(ExportError, match="cannot express the operator") as caught:
            convert(with_exit, name, tmp_path / "b")
        assert "that can: onnx, openvino; or" in caught.value.do


def test_an_early_exit_that_a_program_of_torch_has_not_is_said_to_be_lost(with_exit: Bundle) -> None:
    (note,) = lost(original_of(with_exit))
    assert "LOST" in note
    assert lost(original_of(Bundle.open(BUNDLE))) == ()


@pytest.mark.slow
def test_the_lost_exit_stands_in_the_output_the_provenance_and_the_card(
    with_exit: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["convert", str(with_exit.path), "--to", "torch-export", "--out", str(tmp_path / "b")]) == 0
    assert "note     The early exit is LOST" in capsys.readouterr().out
    made = Bundle.open(tmp_path / "b")
    assert "LOST" in made.provenance["variants"]["torch-export-fp32"]["notes"][0]
    assert "The early exit is LOST" in (made.path / "card.md").read_text("utf-8")


class Branching(torch.nn.Module):
    """Goes a way that depends on what it sees."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() if images.sum() > 0 else images.float() * 2


def test_torch_export_names_what_it_cannot_trace_and_the_formats_that_can() -> None:
    original = original_of(Bundle.open(BUNDLE))
    original.__dict__["network"] = Branching()
    with pytest.raises(ExportError, match=r"torch\.export cannot express the operator If") as caught:
        exported(original, 1)
    assert "that can: onnx, openvino, litert, c; or" in caught.value.do


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'flyweight\[litert\]'"):
        need("no_such_package", "litert")


def test_the_command_converts_and_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b"
    assert cli(["convert", str(BUNDLE), "--to", "litert", "--out", str(out), "--data", "sample", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["variant"], found["parity"]["n"], found["layers"]) == ("litert-fp32", 2000, 14)
    assert verify_bundle(Bundle.open(out), None, "litert-fp32").ok


def test_the_card_does_not_lend_a_converted_file_the_accuracy_of_another_until_it_is_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b.zip"
    convert(Bundle.open(BUNDLE), "onnx", out, opset=15)
    with zipfile.ZipFile(out) as archive:
        card = archive.read("card.md").decode()
    own = card.split("### onnx-opset15-fp32\n\n")[1]
    assert own.startswith("This file was not tested")
    assert "The accuracy of fp32 and int8 is not its own." in own or "The accuracy of fp32 is not its own." in own
    record = ["verify", str(out), "--variant", "onnx-opset15-fp32", "--data", "sample", "--record", "--json"]
    assert cli(record) == 0
    found = json.loads(capsys.readouterr().out)
    recorded = Bundle.open(out).variant("onnx-opset15-fp32").accuracy
    assert recorded is not None
    assert (recorded["top1"], recorded["n"]) == (found["accuracy"], 1000)
    assert len(recorded["per_class"]) == 10
    (line,) = (tmp_path / "test-openings.jsonl").read_text("utf-8").splitlines()
    assert "onnx-opset15-fp32" in json.loads(line)["why"]
    assert cli(["verify", str(out), "--variant", "onnx-opset15-fp32", "--data", "sample"]) == 0
    assert "as recorded" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--record"], ["--data", "sample", "--out", "elsewhere"]])
def test_what_cannot_be_recorded_is_refused_before_anything_is_read(options: list[str]) -> None:
    assert cli(["verify", str(BUNDLE), *options]) == 2
