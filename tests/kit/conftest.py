"""A bundle, its kit, and a Python to run it with; made once."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.kit.bare import bare_python, call
from tests.runtime.tiny_bundle import write_bundle

from flyweight.kit.pack import write_kit
from flyweight.runtime.bundle import Bundle


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python with numpy, onnxruntime and Pillow."""
    return bare_python(tmp_path_factory.mktemp("bare") / "env")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("kit") / "thirds")


@pytest.fixture(scope="session")
def kit(bundle: Path) -> Path:
    return write_kit(Bundle.open(bundle), bundle.parent / "kit.zip", device="pi4")


@pytest.fixture(scope="session")
def ran(kit: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the kit in a process of its own, in the bare environment."""
    folder = tmp_path_factory.mktemp("ran")
    done = call(python, unpacked(kit, folder) / "run.py", "--quick", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "result.json"


@pytest.fixture
def result(ran: Path) -> dict[str, Any]:
    """The same as plain values, to be changed."""
    found: dict[str, Any] = json.loads(ran.read_text())
    return found


@pytest.fixture
def folder(kit: Path, tmp_path: Path) -> Path:
    """An unpacked kit of the test's own."""
    return unpacked(kit, tmp_path)


def unpacked(kit: Path, to: Path) -> Path:
    with zipfile.ZipFile(kit) as archive:
        archive.extractall(to)
    return to / "kit"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Devices of this test's own."""
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
