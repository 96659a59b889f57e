"""The kit on a device that has numpy, onnxruntime and Pillow, and nothing else."""

from __future__ import annotations

import ast
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.kit.bare import bare_python, call
from tests.kit.conftest import unpacked
from tests.kit.made import made, model, written
from tests.runtime.tiny_bundle import write_bundle

import flyweight.kit.start
from flyweight.cli import run as cli
from flyweight.errors import DeviceError
from flyweight.kit.pack import write_kit
from flyweight.measure.device import host
from flyweight.measure.result import read_result
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.hashes import write_sums

MORE_THAN_ENOUGH = {"pydantic", "torch", "onnx", "typer", "yaml", "flyweight"}


def test_the_device_has_none_of_what_flyweight_needs_elsewhere(python: Path, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print([n for n in {sorted(MORE_THAN_ENOUGH)} if find_spec(n)])"
    assert call(python, "-c", code, cwd=tmp_path).stdout == "[]\n"


def test_the_kit_measures_there_and_its_result_is_one_that_devices_send(ran: Path, bundle: Path) -> None:
    found = read_result(ran)
    (row,) = found.models
    assert row.golden is not None
    assert (row.golden.ok, row.golden.n) == (True, 32)
    assert {*row.clocks} == {"model", "preprocess_model", "encoded"}
    assert all(len(runs) == 3 for runs in row.clocks.values())
    assert row.budget_values()["latency_p90"] is not None
    assert row.memory is not None
    assert row.memory.peak_bytes > row.memory.empty_bytes > 10**6
    assert row.sha256 == hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    assert found.bundle.sha256 == hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest()
    assert found.device == "pi4"


def test_the_conditions_are_those_of_this_machine(ran: Path) -> None:
    found = read_result(ran).conditions
    here = host()
    assert found.memory_bytes == here.memory_bytes
    assert found.cpu in here.description
    assert found.versions["onnxruntime"] == here.runtimes["onnxruntime"]
    assert found.command == "run.py --quick"
    assert "pydantic" not in found.versions


def test_the_runner_is_this_package_word_for_word(folder: Path) -> None:
    root = Path(flyweight.kit.start.__file__).parents[1]
    for path in (folder / "runner/flyweight").rglob("*.py"):
        assert path.read_bytes() == (root / path.relative_to(folder / "runner/flyweight")).read_bytes()
    assert (folder / "runner/flyweight/runtime/timing.py").is_file()


def test_a_kit_is_small_and_the_same_bundle_gives_the_same_bytes(kit: Path, bundle: Path, tmp_path: Path) -> None:
    from flyweight.kit.pack import write_kit
    from flyweight.runtime.bundle import Bundle

    assert kit.stat().st_size < 200_000
    assert write_kit(Bundle.open(bundle), tmp_path / "again.zip", device="pi4").read_bytes() == kit.read_bytes()


def test_a_file_that_was_damaged_on_the_way_stops_it(folder: Path, python: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "models/fp32/model.onnx").read_bytes())
    content[200] ^= 1
    (folder / "models/fp32/model.onnx").write_bytes(content)
    done = call(python, folder / "run.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "'models/fp32/model.onnx'" in done.stderr
    assert "has changed" in done.stderr
    assert not (tmp_path / "result.json").exists()


def brighter(file: Path) -> None:
    """Change one weight of a model file."""
    model = onnx.load(file)
    tensor = next(one for one in model.graph.initializer if one.name == "weight")
    changed = numpy_helper.to_array(tensor).copy()
    changed.flat[0] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    file.write_bytes(model.SerializeToString())


def test_a_model_that_answers_otherwise_there_is_not_timed_and_is_evidence(
    folder: Path, python: Path, tmp_path: Path
) -> None:
    brighter(folder / "models/fp32/model.onnx")
    write_sums(folder)
    done = call(python, folder / "run.py", "--quick", cwd=tmp_path)
    assert done.returncode == 1
    assert "fp32 does not verify on this machine" in done.stderr
    (row,) = read_result(tmp_path / "result.json").models
    assert row.golden is not None
    assert not row.golden.ok
    assert row.clocks == {}


def test_a_model_that_this_runtime_cannot_load_is_said_and_the_others_are_measured(
    folder: Path, python: Path, tmp_path: Path
) -> None:
    kit = json.loads((folder / "kit.json").read_text())
    (folder / "models/broken.onnx").write_bytes(b"no model")
    kit["models"].append({**kit["models"][0], "name": "broken", "file": "models/broken.onnx"})
    (folder / "kit.json").write_text(json.dumps(kit))
    write_sums(folder)
    assert call(python, folder / "run.py", "--quick", cwd=tmp_path).returncode == 0
    good, broken = read_result(tmp_path / "result.json").models
    assert good.clocks
    assert "cannot load" in (broken.problem or "")


def test_what_is_missing_is_said_with_the_line_that_installs_it(folder: Path, tmp_path: Path) -> None:
    python = bare_python(tmp_path / "env", ["numpy"])
    done = call(python, folder / "run.py", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: missing on this machine: onnxruntime>=1.23, pillow>=11\n")
    assert '-m pip install "numpy>=2.0" "onnxruntime>=1.23" "pillow>=11"' in done.stderr


def test_carried_wheels_are_what_the_line_installs_from(folder: Path, tmp_path: Path) -> None:
    (folder / "wheels").mkdir()
    done = call(bare_python(tmp_path / "env", []), folder / "run.py", cwd=tmp_path)
    assert f"--no-index --find-links {folder / 'wheels'}" in done.stderr


def test_a_package_that_is_too_old_is_named_with_its_version(folder: Path, python: Path, tmp_path: Path) -> None:
    (folder / "requirements.txt").write_text("numpy>=99.0\n")
    done = call(python, folder / "run.py", cwd=tmp_path)
    assert f"numpy>=99.0 (found {np.__version__})" in done.stderr


def test_pythons_that_are_too_old_can_read_what_tells_them_so() -> None:
    ast.parse(Path(flyweight.kit.start.__file__).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("threads", ["0"])
def test_threads_that_are_none_are_refused(threads: str, folder: Path, python: Path, tmp_path: Path) -> None:
    done = call(python, folder / "run.py", "--threads", threads, cwd=tmp_path)
    assert done.returncode == 1
    assert "--threads" in done.stderr


def test_checking_alone_times_nothing(folder: Path, python: Path, tmp_path: Path) -> None:
    done = call(python, folder / "run.py", "--check", cwd=tmp_path)
    assert (done.returncode, "as recorded" in done.stdout) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


def with_openvino(out: Path) -> Bundle:
    """A bundle with an OpenVINO variant of two files, and one in C."""
    path = write_bundle(out)
    made = json.loads((path / "bundle.json").read_text())
    original = made["variants"]["fp32"]
    (path / "model.xml").write_text("<net/>")
    (path / "model.bin").write_bytes(b"weights")
    made["variants"]["ov"] = {
        **original, "file": "model.xml", "beside": ["model.bin"], "format": "openvino", "backend": "openvino",
        "source": "fp32", "size_bytes": 13,
    }  # fmt: skip
    (path / "bundle.json").write_text(json.dumps(made))
    write_sums(path)
    return Bundle.open(path)


def test_a_kit_asks_for_the_runtimes_of_what_it_carries(tmp_path: Path) -> None:
    bundle = with_openvino(tmp_path / "b")
    for variants, wanted in (((), True), (("fp32",), False)):
        kit = write_kit(bundle, tmp_path / "kit.zip", variants=variants)
        with zipfile.ZipFile(kit) as archive:
            needs = archive.read("kit/requirements.txt").decode()
            assert ("openvino" in archive.read("kit/README.txt").decode()) is wanted
        assert ("openvino>=2026.1\n" in needs) is wanted
        assert needs.startswith("numpy>=2.0\nonnxruntime>=1.23\npillow>=11\n")


def test_a_missing_runtime_is_said_with_the_line_and_the_others_are_measured(python: Path, tmp_path: Path) -> None:
    folder = unpacked(write_kit(with_openvino(tmp_path / "b"), tmp_path / "kit.zip"), tmp_path)
    done = call(python, folder / "run.py", "--check", cwd=tmp_path)
    assert "not measured for want of: openvino>=2026.1" in done.stderr
    assert '"openvino>=2026.1"' in done.stderr
    assert "golden vectors: 1 of 2 as recorded" in done.stderr + done.stdout


def test_other_weights_beside_the_same_file_are_another_model(tmp_path: Path) -> None:
    bundle = with_openvino(tmp_path / "b")
    with zipfile.ZipFile(write_kit(bundle, tmp_path / "kit.zip", variants=["ov"])) as archive:
        (row,) = json.loads(archive.read("kit/kit.json"))["models"]
    result = read_result(written(tmp_path / "r.json", made([model("ov", 3.0, sha256=row["sha256"])])))
    assert "ov, 1 thread(s)" in result.of_bundle(bundle)["measured"]
    (bundle.path / "model.bin").write_bytes(b"WEIGHTS")
    write_sums(bundle.path)
    with pytest.raises(DeviceError, match="none of its files"):
        result.of_bundle(Bundle.open(bundle.path))


def test_a_name_that_no_device_can_have_is_refused_before_anything_is_packed(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="'Pi 4' cannot be the name of a device"):
        write_kit(Bundle.open(bundle), tmp_path / "kit.zip", device="Pi 4")
    assert list(tmp_path.iterdir()) == []


def test_quick_is_refused_where_it_would_do_nothing(bundle: Path, tmp_path: Path) -> None:
    assert cli(["kit", str(bundle), "--out", str(tmp_path / "kit.zip"), "--quick"]) == 2
    assert list(tmp_path.iterdir()) == []
