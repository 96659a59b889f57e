"""C sources of a bundle: they compile without a warning, need no heap, and say what the ONNX file says."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image
from tests.export.c_graphs import CHANNELS, CLASSES, GRAPHS, SIDE, Maker
from torch.nn import functional

from flyweight.cli import run
from flyweight.errors import BundleError, ExportError, MissingExtraError, OutputError
from flyweight.export.bundle import copy_bundle
from flyweight.export.c.arena import plan
from flyweight.export.c.evaluate import evaluate, is_integer
from flyweight.export.c.fuse import fuse
from flyweight.export.c.integers import fixed
from flyweight.export.c.project import Project, write_project
from flyweight.export.c.sizes import sizes_of
from flyweight.export.c.source import lowered, source_of
from flyweight.export.convert import convert
from flyweight.export.onnx import export_untrained
from flyweight.kit.pack import write_kit
from flyweight.measure.verify import verify
from flyweight.models.architecture import Architecture
from flyweight.runtime.backends import load_backend
from flyweight.runtime.backends.c import build_file
from flyweight.runtime.bundle import Bundle, Variant
from flyweight.runtime.hashes import write_sums
from flyweight.runtime.predict import Predictor
from flyweight.runtime.preprocess import Preprocess

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "bundles/tiny-mnist"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
# What the model may ask of the C library: nothing that allocates, prints or reads.
ALLOWED = {"expf", "tanhf", "erff", "sqrtf", "rintf", "memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


@pytest.fixture(autouse=True, scope="module")
def needs_a_compiler() -> None:
    if not all(map(shutil.which, ("gcc", "g++", "cmake"))):
        reason = "gcc, g++ and cmake are needed (.ci/apt.txt)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    folder = tmp_path_factory.mktemp("projects")
    return {name: write_project(Bundle.open(TINY), folder / name, variant=name) for name in ("fp32", "int8")}


def compile_c(*arguments: object) -> None:
    done = subprocess.run(["gcc", *STRICT, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def bundle_of(model: onnx.ModelProto, folder: Path) -> tuple[Bundle, Variant]:
    """Return a bundle of one file, as far as C sources ask for one."""
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    precision = "int8" if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else "fp32"
    variant = Variant(precision, file, "onnx", precision, "onnxruntime", 1e-3, file, file.stat().st_size, None)
    classes = tuple(f"class {number}" for number in range(CLASSES))
    preprocess = Preprocess(SIDE, CHANNELS)
    return Bundle(folder, "small", classes, preprocess, {precision: variant}, precision, 1.0, None, {}, {}), variant


def logits_in_c(bundle: Bundle, variant: Variant, images: np.ndarray, folder: Path) -> np.ndarray:
    made = source_of(bundle, variant)
    (folder / "model.c").write_text(made.code)
    (folder / "model.h").write_text(made.header)
    compile_c("-c", folder / "model.c", "-o", folder / "model.o")
    build_file(folder / "model.c")
    return load_backend("c", folder / "model.c").run(images)


def logits_in_onnxruntime(file: Path, images: np.ndarray) -> np.ndarray:
    return load_backend("onnxruntime", file).run(images)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, CHANNELS, SIDE, SIDE), np.uint8)


class Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"images": image[None]}


def in_int8(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return the graph as ONNX Runtime quantizes it: QDQ, int8 weights per channel, uint8 activations."""
    (folder / "float.onnx").write_bytes(model.SerializeToString())
    quantize_static(
        folder / "float.onnx", folder / "int8.onnx", Reader(noise(16)), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_float_graph_in_c_gives_onnxruntimes_logits(name: str, tmp_path: Path) -> None:
    bundle, variant = bundle_of(GRAPHS[name](), tmp_path)
    images = noise(20)
    found = logits_in_c(bundle, variant, images, tmp_path)
    np.testing.assert_allclose(found, logits_in_onnxruntime(variant.file, images), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", GRAPHS)
def test_an_int8_graph_in_c_is_computed_in_integers_as_onnxruntime_does(name: str, tmp_path: Path) -> None:
    bundle, variant = bundle_of(in_int8(GRAPHS[name](), tmp_path), tmp_path)
    images = noise(20)
    found = logits_in_c(bundle, variant, images, tmp_path)
    expected = logits_in_onnxruntime(variant.file, images)
    assert not source_of(bundle, variant).in_float
    # One level more or less of the last tensors, where a tie is rounded the other way.
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    steps = lowered(bundle, variant)
    if is_integer(steps):
        np.testing.assert_array_equal(found, evaluate(steps, images))


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_the_project_builds_with_cmake_and_gives_every_golden_vector(
    variant: str, projects: dict[str, Project], tmp_path: Path
) -> None:
    made = projects[variant]
    assert made.tolerance == (0.0 if variant == "int8" else Bundle.open(TINY).variant("fp32").tolerance)
    environment = {**os.environ, "CFLAGS": "-Werror"}
    for command in (["cmake", "-S", made.folder, "-B", tmp_path / "build"], ["cmake", "--build", tmp_path / "build"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    said = subprocess.run([tmp_path / "build/test_golden"], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert said.stdout.startswith("32 of 32 golden pictures give the logits expected")
    image = Bundle.open(TINY).golden(Bundle.open(TINY).variant())[0][0, 0]
    (tmp_path / "digit.pgm").write_bytes(b"P5\n# a comment\n28 28\n255\n" + image.tobytes())
    told = subprocess.run([tmp_path / "build/main", tmp_path / "digit.pgm"], capture_output=True, text=True, check=True)
    logits = load_backend("onnxruntime", Bundle.open(TINY).variant(variant).file).run(image[None, None])[0]
    likely = np.exp(logits / Bundle.open(TINY).temperature)
    assert told.stdout.split()[0] == Bundle.open(TINY).classes[logits.argmax()]
    assert float(told.stdout.split()[1]) == pytest.approx(float((likely / likely.sum()).max()), abs=2e-4)


def test_a_wrong_weight_fails_the_golden_test(projects: dict[str, Project], tmp_path: Path) -> None:
    folder = shutil.copytree(projects["int8"].folder, tmp_path / "copy")
    code = (folder / "model.c").read_text()
    (folder / "model.c").write_text(
        re.sub(r"(static const int8_t data_\d+\[\d+\] = {\n    )-?\d+", r"\g<1>99", code, count=1)
    )
    assert (folder / "model.c").read_text() != code
    compile_c(folder / "model.c", folder / "test_golden.c", "-lm", "-o", tmp_path / "golden")
    assert subprocess.run([tmp_path / "golden"], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_the_model_needs_no_heap_and_no_files(variant: str, projects: dict[str, Project], tmp_path: Path) -> None:
    folder = projects[variant].folder
    for source in ("model", "resize"):
        compile_c("-O2", "-fno-stack-protector", "-c", folder / f"{source}.c", "-o", tmp_path / f"{source}.o")
        lines = subprocess.check_output(["nm", "--undefined-only", tmp_path / f"{source}.o"], text=True).split("\n")
        asked = {line.split()[-1] for line in lines if line}
        assert asked <= (ALLOWED if source == "model" else {"_GLOBAL_OFFSET_TABLE_", "flyweight_window"}), asked


def test_flash_and_ram_are_as_size_says_and_little_more_than_weights_and_activations(
    projects: dict[str, Project],
) -> None:
    made = projects["int8"]
    assert made.sizes == tuple(sizes_of(made.folder / "model.c"))
    assert {size.target for size in made.sizes} >= {"this machine"}
    for size in made.sizes:
        assert size.ram - made.source.arena_bytes < 64
        assert 0 < size.flash - made.source.weight_bytes < 6000
    assert made.source.arena_bytes == 28 * 28 * 16 + 14 * 14 * 16  # the first layer's picture and the second's
    assert all(f"| {number} |" in (made.folder / "README.md").read_text() for number in vars(made.sizes[0]).values()
               if isinstance(number, int))  # fmt: skip


def test_the_arduino_sketch_is_valid_cpp_beside_its_c(projects: dict[str, Project], tmp_path: Path) -> None:
    """Against a stand-in of Arduino's header: no board is here."""
    folder = projects["int8"].folder / "arduino/flyweight"
    (tmp_path / "Arduino.h").write_text(
        "struct Port { void begin(long); template <class T> void print(T, int = 0);"
        "template <class T> void println(T); };"
        "extern Port Serial; unsigned long micros(); void delay(int);"
    )
    command = ["g++", "-x", "c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-include", tmp_path / "Arduino.h"]
    done = subprocess.run([*command, folder / "flyweight.ino"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("graph", [*GRAPHS, "fp32", "int8"])
def test_no_storage_lies_over_another_that_is_still_read(graph: str, tmp_path: Path) -> None:
    small = graph in GRAPHS
    tiny = Bundle.open(TINY)
    steps = lowered(*(bundle_of(GRAPHS[graph](), tmp_path) if small else (tiny, tiny.variant(graph))))
    fused = fuse(steps.program.steps)
    arena = plan(fused, (steps.image, steps.logits))
    holds: dict[int, int] = {}  # byte of the arena: number of the storage whose value it has
    for step in fused:
        for storage in step.inputs:
            if storage != steps.image:
                place = arena.offsets[storage.number]
                assert {holds[byte] for byte in range(place, place + storage.nbytes)} == {storage.number}
        if step.output != steps.logits:
            place = arena.offsets[step.output.number]
            assert place % 4 == 0
            assert place + step.output.nbytes <= arena.nbytes
            holds |= dict.fromkeys(range(place, place + step.output.nbytes), step.output.number)


def ideal(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Return what a QDQ graph means, in float64: nothing is rounded but by QuantizeLinear, halves to even."""
    values = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    values["images"] = torch.from_numpy(images)
    for node in model.graph.node:
        given = [values[name] for name in node.input]
        own = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        x = given[0]
        if node.op_type == "QuantizeLinear":
            done = torch.clip(torch.round(x.double() / given[1].double()) + given[2].double(), 0, 255)
        elif node.op_type == "DequantizeLinear":
            scale = given[1].double()
            each = [-1 if axis == own.get("axis") else 1 for axis in range(x.dim())] if scale.dim() else []
            zero = given[2].double() if len(given) > 2 else torch.zeros(())
            done = (x.double() - zero) * scale.reshape(each)
        elif node.op_type == "Conv":
            pads = own.get("pads", [0] * 4)
            bias = given[2] if len(given) > 2 else None
            done = functional.conv2d(x, given[1], bias, own.get("strides", 1), pads[:2], 1, own.get("group", 1))
        elif node.op_type == "Gemm":
            done = x @ given[1].T + given[2]
        else:
            done = {
                "Cast": lambda x, *_: x.double(),
                "Sub": lambda x, y: x - y.double(),
                "Mul": lambda x, y: x * y.double(),
                "Add": lambda x, y: x + y,
                "Relu": lambda x: x.clip(0),
                "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
                "Reshape": lambda x, _: x.flatten(1),
            }[node.op_type](*given)
        values[node.output[0]] = done
    return values["logits"].numpy()


def test_int8_in_c_is_what_the_file_means_in_exact_arithmetic(tmp_path: Path) -> None:
    bundle = Bundle.open(TINY)
    variant = bundle.variant("int8")
    images = np.concatenate(
        [bundle.golden(variant)[0], np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), np.uint8)]
    )
    expected = ideal(onnx.load(variant.file), images)
    np.testing.assert_allclose(logits_in_c(bundle, variant, images, tmp_path), expected, rtol=1e-6, atol=1e-5)


def test_a_multiplier_and_its_shift_are_within_a_billionth() -> None:
    wanted = np.concatenate([10.0 ** np.random.default_rng(0).uniform(-9, 2, 1000), 2.0 ** np.arange(-20, 8)])
    whole, shift = fixed(wanted)
    found = whole.astype(np.float64) / 2.0 ** shift.astype(np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert whole.min() > 0
    assert (found[1000:] == wanted[1000:]).all()


def test_an_operator_without_a_kernel_is_named_with_the_formats_that_have_it(tmp_path: Path) -> None:
    made = Maker()
    made.conv(4)
    made.add("Softmax", axis=1)
    bundle, variant = bundle_of(made.head(), tmp_path)
    with pytest.raises(ExportError, match=r"C cannot express the operator Softmax.*'axis': 1") as caught:
        source_of(bundle, variant)
    assert "onnx, openvino" in caught.value.do


def test_integers_that_are_not_what_the_runtime_gives_are_refused_though_c_and_its_golden_vectors_agree(
    tmp_path: Path,
) -> None:
    """As a mistake in the lowering would look: both are made of it, so only the bundle's own logits can tell."""
    shutil.copytree(TINY, tmp_path / "b")
    golden = tmp_path / "b/golden/logits-int8.npy"
    logits = np.load(golden)
    np.save(golden, logits + np.float32(2 * Bundle.open(TINY).variant("int8").tolerance))
    write_sums(tmp_path / "b")
    with pytest.raises(ExportError, match="other answers than the file in its runtime"):
        write_project(Bundle.open(tmp_path / "b"), tmp_path / "out", variant="int8")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_project(Bundle.open(TINY), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_a_compiler_the_backend_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.c").write_text("int flyweight_shape;")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(MissingExtraError, match="no-such-compiler") as caught:
        load_backend("c", tmp_path / "model.c")
    assert "apt install gcc" in caught.value.do


def test_class_names_of_any_text_come_out_of_c_as_they_are(tmp_path: Path) -> None:
    bundle, variant = bundle_of(GRAPHS["pooled"](), tmp_path)
    names = ('say "no"', "back\\slash ??/", "Grüße 1", "new\nline", "7")
    made = source_of(replace(bundle, classes=names), variant)
    (tmp_path / "model.c").write_text(made.code)
    (tmp_path / "model.h").write_text(made.header)
    compile_c("-shared", "-fPIC", tmp_path / "model.c", "-lm", "-o", tmp_path / "model.so")
    found = (ctypes.c_char_p * CLASSES).in_dll(ctypes.CDLL(str(tmp_path / "model.so")), "flyweight_classes")
    assert [one.decode() for one in found] == list(names)


def test_a_bundle_gets_c_variants_that_verify_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert run(["convert", str(TINY), "--to", "c", "--precision", "int8", "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["variant"], facts["layers"], facts["in_float"]) == ("c-int8", 14, [])
    assert facts["parity"]["top1_agreement"] == 1.0
    assert run(["verify", str(out), "--variant", "c-int8", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["golden_ok"]
    assert checked["golden_max_error"] == 0.0
    assert checked["backend"] == "c"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_ten_thousand_digits_get_the_class_that_onnxruntime_gives(
    variant: str, real_data: Path, tmp_path: Path
) -> None:
    file = real_data / "MNIST/raw/t10k-images-idx3-ubyte"
    if not file.exists():
        pytest.skip(f"FLYWEIGHT_DATA has no {file.name}")
    bundle = Bundle.open(TINY)
    images = np.frombuffer(file.read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    ours = logits_in_c(bundle, bundle.variant(variant), images, tmp_path)
    theirs = logits_in_onnxruntime(bundle.variant(variant).file, images)
    assert len(images) == 10_000
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mobilenetv3_small_050", "shufflenet_v2_x0_5", "tiny_resnet8_4"])
def test_a_network_of_the_catalogue_in_c_gives_onnxruntimes_logits(network: str, tmp_path: Path) -> None:
    file = export_untrained(Architecture(network, CLASSES, image_size=32), tmp_path / "net.onnx")
    variant = Variant("fp32", file, "onnx", "fp32", "onnxruntime", 1e-3, file, file.stat().st_size, None)
    bundle, _ = bundle_of(GRAPHS["pooled"](), tmp_path)
    bundle = replace(bundle, preprocess=Preprocess(32, 3), variants={"fp32": variant})
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    found, expected = logits_in_c(bundle, variant, images, tmp_path), logits_in_onnxruntime(file, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a variant in C."""
    out = tmp_path_factory.mktemp("in-c") / "bundle"
    convert(Bundle.open(TINY), "c", out, precision="int8")
    return out


def with_a_shell_command(bundle: Path, out: Path, marker: Path) -> Path:
    """Return a copy whose C runs a command when it is loaded; sizes and hashes are right, and it is the default."""
    shutil.copytree(bundle, out)
    with (out / "model-c-int8.c").open("a") as file:
        file.write(f'#include <stdlib.h>\n__attribute__((constructor)) static void on_load(void) '
                   f'{{ if (system("touch {marker}")) {{}} }}\n')  # fmt: skip
    manifest = json.loads((out / "bundle.json").read_text())
    entry = manifest["variants"]["c-int8"]
    entry["size_bytes"] = sum((out / name).stat().st_size for name in (entry["file"], *entry["beside"]))
    manifest["default"] = "c-int8"
    (out / "bundle.json").write_text(json.dumps(manifest))
    write_sums(out)
    return out


def test_a_program_hidden_in_a_bundles_c_is_never_compiled(
    in_c: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "it-ran"
    bundle = str(with_a_shell_command(in_c, tmp_path / "b", marker))
    picture = str(tmp_path / "picture.png")
    Image.new("L", (28, 28)).save(picture)
    for command in (["verify"], ["predict", picture], ["measure", "--quick"], ["measure", "--batch", "1", "--quick"]):
        assert run([command[0], bundle, *command[1:]]) == 1
        told = capsys.readouterr().err
        assert "'model-c-int8.c' is not the text that Flyweight" in told, command
    with pytest.raises(BundleError, match="not the text"):
        write_kit(Bundle.open(Path(bundle)), tmp_path / "kit.zip")
    with pytest.raises(BundleError, match="nothing on this machine has shown"):
        load_backend("c", Path(bundle) / "model-c-int8.c")
    assert not marker.exists()
    # The attack is real: built by who vouches for it, it runs.
    build_file(Path(bundle) / "model-c-int8.c")
    load_backend("c", Path(bundle) / "model-c-int8.c")
    assert marker.exists()


def test_equal_c_is_compiled_by_verify_on_a_machine_that_has_never_seen_it(
    in_c: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "elsewhere"))
    opened = Bundle.open(in_c)
    with pytest.raises(BundleError, match="flyweight verify BUNDLE --variant NAME"):
        Predictor(opened, variant="c-int8")
    assert verify(in_c, variant="c-int8").ok
    Predictor(opened, variant="c-int8")


def test_c_is_still_known_after_the_bundle_was_renamed(in_c: Path, tmp_path: Path) -> None:
    renamed = copy_bundle(Bundle.open(in_c), tmp_path / "b", name="another name", default="c-int8")
    assert verify(renamed.path).ok


@pytest.mark.parametrize("stem", ['a" evil', "a\n#include <stdlib.h>", "a\\", ""])
def test_a_file_name_cannot_be_a_part_of_the_program(stem: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be the name of a C file"):
        source_of(*bundle_of(GRAPHS["pooled"](), tmp_path), stem=stem)


def test_a_name_cannot_end_the_comment_it_stands_in(tmp_path: Path) -> None:
    bundle, variant = bundle_of(GRAPHS["pooled"](), tmp_path)
    for evil in ("*/ int x; /*", "*\\\n/ int x; /*", "*??/\n/ int x; /*", "*\\\r/ int x;"):
        made = source_of(replace(bundle, name=evil), variant)
        (tmp_path / "model.h").write_text(made.header)
        (tmp_path / "model.c").write_text(made.code)
        compile_c("-c", tmp_path / "model.c", "-o", tmp_path / "model.o")
        symbols = subprocess.run(["nm", tmp_path / "model.o"], capture_output=True, text=True, check=True).stdout
        assert not any(line.endswith(" x") for line in symbols.splitlines())
