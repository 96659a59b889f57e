"""Every backend, the same questions; a new one is asked them as soon as it is listed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.tiny_bundle import SIZE, model

from flyweight.errors import BundleError
from flyweight.runtime.backends import CHECK, DEFAULT, ENGINES, engines_of, installed, load_backend

# Backend to a writer of a file it can load; busy-wait has a format of its own.
FILES = {"busy-wait": lambda: json.dumps({"milliseconds": 0.01, "classes": 3, "shape": [3, SIZE, SIZE]}).encode()}


@pytest.fixture(params=[CHECK, *installed()])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(FILES.get(name, lambda: model().SerializeToString())())
    return path


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_images_give_one_row_of_logits_each(name: str, file: Path, n: int, threads: int) -> None:
    logits = load_backend(name, file, threads).run(np.zeros((n, 3, SIZE, SIZE), np.uint8))
    assert logits.shape == (n, 3)
    assert logits.dtype == np.float32


def test_it_says_its_name_and_the_shape_of_an_image(name: str, file: Path) -> None:
    backend = load_backend(name, file)
    assert (backend.name, backend.shape) == (name, (3, SIZE, SIZE))


def test_a_file_of_another_kind_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"other\.bin"):
        load_backend(name, tmp_path / "other.bin")


def test_batches_of_any_size_in_any_order_give_the_rows_of_each_image_alone(name: str, file: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, SIZE, SIZE)).astype(np.uint8)
    backend = load_backend(name, file)
    alone = np.concatenate([backend.run(images[at : at + 1]) for at in range(6)])
    for size in (1, 4, 2, 1, 6):
        given = images[::-1][:size]  # not contiguous
        np.testing.assert_allclose(backend.run(given), alone[::-1][:size], atol=1e-5)


HEAVY = ("executorch", "torch-export")  # they import torch


@pytest.mark.parametrize(
    "engine", [pytest.param(one, marks=[pytest.mark.slow] if one in HEAVY else []) for one in ENGINES]
)
def test_a_broken_file_of_its_own_kind_is_refused_by_name(engine: str, tmp_path: Path) -> None:
    suffix = ENGINES[engine].reads[-1]
    for name in (f"bad{suffix}", "bad.bin"):
        (tmp_path / name).write_bytes(b"nonsense" * 20)
    with pytest.raises(BundleError, match=rf"{engine} cannot load .*bad\{suffix}"):
        load_backend(engine, tmp_path / f"bad{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["data/weights/model_weights_config.json", "data/sample_inputs/model.pt"])
def test_a_program_that_would_be_unpickled_is_refused_and_nothing_of_it_runs(inside: str, tmp_path: Path) -> None:
    """torch.export.load runs what such a file holds: here it would write a file."""

    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "harm",))

    asks = json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}).encode()
    with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as archive:
        archive.writestr(f"bad/{inside}", asks if inside.endswith("json") else pickle.dumps(Harm()))
    with pytest.raises(BundleError, match=r"bad\.pt2"):
        load_backend("torch-export", tmp_path / "bad.pt2")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("engine", engines_of())
def test_an_engine_asks_no_network_and_leaves_the_home_folder_alone(engine: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "home").mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "def refuse(event, args):\n"
        "    assert not event.startswith(('socket.connect', 'socket.getaddrinfo', 'subprocess.', 'os.fork')), event\n"
        "sys.addaudithook(refuse)\n"
        "from flyweight.runtime.backends import load_backend\n"
        f"load_backend({engine!r}, Path({str(tmp_path / 'm.onnx')!r}))\n"
        "assert sys.modules.get('openvino_telemetry') is None\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list((tmp_path / "home").iterdir()) == []


def test_all_engines_are_installed_where_tests_run() -> None:
    assert all(installed(suffix) == engines_of(suffix) for engine in ENGINES.values() for suffix in engine.reads)
    assert engines_of()[0] == DEFAULT


@pytest.mark.parametrize("engine", engines_of())
def test_an_engine_computes_what_numpy_does(engine: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model(gain=6.0).SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (4, 3, SIZE, SIZE), np.uint8)
    thirds = images.reshape(4, 3, SIZE, 3, SIZE // 3) / 255
    expected = 6.0 * thirds.mean(axis=(1, 2, 4))
    found = load_backend(engine, tmp_path / "m.onnx").run(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("engine", engines_of())
def test_an_engine_refuses_a_graph_that_wants_normalised_floats(engine: str, tmp_path: Path) -> None:
    made = model()
    made.graph.input[0].type.tensor_type.elem_type = 1
    (tmp_path / "float.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(BundleError, match=r"(?s)float\.onnx.*flyweight export"):
        load_backend(engine, tmp_path / "float.onnx")
