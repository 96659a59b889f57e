"""The wheel in a clean environment: the base install has no torch and does what a device must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.runtime.tiny_bundle import write_bundle, write_pictures

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def call(*command: object, cwd: Path = ROOT) -> str:
    """Run a command and return its standard output; its words are the message where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out)
    return out


def install(python: Path, requirement: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    call(
        *([uv, "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]), requirement
    )


@pytest.fixture(scope="module")
def clean(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and nothing but its base requirements."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    call(sys.executable, "-m", "venv", home)
    install(home / "bin/python", str(next(built.glob("*.whl"))))
    return home / "bin"


def test_the_sdist_holds_the_recipes_the_sample_and_the_licence(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as file:
        names = {name.split("/", 1)[-1] for name in file.getnames()}
    assert {
        "LICENSE", "NOTICE", "src/flyweight/train/recipes/smoke.yaml", "src/flyweight/report/page/report.html.j2",
        "src/flyweight/data/sample/fashion.npz", "src/flyweight/data/sample/LICENSE",
    } <= names  # fmt: skip


def test_the_base_install_has_no_torch(clean: Path, tmp_path: Path) -> None:
    found = json.loads(call(clean / "flyweight", "doctor", "--json", cwd=tmp_path))
    assert "torch" in found["extras"]["train"]


def test_the_base_install_predicts(clean: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 2)
    out = call(clean / "flyweight", "predict", write_bundle(tmp_path / "b"), pictures / "left", "--json", cwd=tmp_path)
    assert [json.loads(line)["top"][0]["class"] for line in out.splitlines()] == ["left", "left"]


def test_the_base_install_verifies_with_data(clean: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 20)
    out = call(clean / "flyweight", "verify", write_bundle(tmp_path / "b"), "--data", pictures, "--json", cwd=tmp_path)
    assert json.loads(out)["accuracy"] == 1.0


def test_the_base_install_reads_the_embedded_sample(clean: Path, tmp_path: Path) -> None:
    assert json.loads(call(clean / "flyweight", "data", "check", "sample", "--json", cwd=tmp_path))["images"] > 5000


def test_the_base_install_measures(clean: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    found = json.loads(call(clean / "flyweight", "measure", bundle, "--quick", "--json", cwd=tmp_path))
    assert found["latency_p90_ms"] > 0


def test_the_report_extra_draws_the_page(clean: Path, built: Path, tmp_path: Path) -> None:
    install(clean / "python", f"{next(built.glob('*.whl'))}[report]")
    call(clean / "python", "-c", "import runpy; runpy.run_module('flyweight.report', run_name='__main__')",
         tmp_path / "page", cwd=tmp_path)  # fmt: skip
    assert "<html" in (tmp_path / "page/report.html").read_text("utf-8")
