"""Where nodes run: asked of the engines themselves."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from tests.runtime.tiny_bundle import model

from flyweight.errors import BundleError, MissingExtraError
from flyweight.runtime.backends import CUDA, CUDA_PROVIDER, available, engines_of, load_backend
from flyweight.runtime.placement import CPU_PROVIDER, placed_by_onnxruntime, placement

OPS = ["Cast", "Mul", "Conv", "Flatten"]
AZURE = "AzureExecutionProvider"  # comes with the package on many systems, and runs no such node
no_cuda = pytest.mark.skipif(CUDA_PROVIDER in onnxruntime.get_available_providers(), reason="CUDA is here")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    return path


def test_every_node_of_a_file_is_on_the_processor_with_the_default_engine(file: Path) -> None:
    found = placement(file, "onnxruntime")
    assert [node.op for node in found.nodes] == OPS
    assert {node.provider for node in found.nodes} == {CPU_PROVIDER}
    assert found.elsewhere == ()
    assert str(found) == "all 4 nodes on CPUExecutionProvider"


def test_openvino_takes_every_operation_on_the_processor(file: Path) -> None:
    found = placement(file, "openvino")
    assert len(found.nodes) >= 3
    assert found.elsewhere == ()


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has one provider")
def test_nodes_that_fall_back_to_another_provider_are_found_one_by_one(file: Path) -> None:
    found = placed_by_onnxruntime(file, [AZURE, CPU_PROVIDER])
    assert [node.op for node in found.elsewhere] == OPS
    assert str(found).startswith("4 of 4 nodes are not on AzureExecutionProvider: 1 Cast on CPUExecutionProvider")


@pytest.mark.parametrize("engine", engines_of())
def test_a_file_that_is_no_model_is_refused_by_name(engine: str, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"bad\.onnx"):
        placement(tmp_path / "bad.onnx", engine)


def test_a_provider_that_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(BundleError, match="NoSuchProvider"):
        placed_by_onnxruntime(file, ["NoSuchProvider", CPU_PROVIDER])


def test_a_backend_that_does_not_say_is_refused(file: Path) -> None:
    with pytest.raises(BundleError, match="does not say"):
        placement(file, "busy-wait")


@no_cuda
def test_cuda_is_offered_only_where_it_is() -> None:
    assert available() == engines_of()


@no_cuda
def test_cuda_that_is_not_there_is_an_error_with_the_line_that_installs_it(file: Path) -> None:
    with pytest.raises(MissingExtraError, match="onnxruntime-gpu"):
        load_backend(CUDA, file)
