"""A device has no torch: predict, verify with data and measure must not need it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "scipy", "sklearn", "psutil", "safetensors"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Refuse())
from flyweight.cli import run
sys.exit(run(sys.argv[1:]))
"""


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return python(BLOCK, *map(str, arguments))


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_block_blocks() -> None:
    assert "torch is blocked" in python(BLOCK.replace("from flyweight.cli import run", "import torch")).stderr


def test_predict_runs(bundle_path: Path, test_pictures: Path) -> None:
    done = cli("predict", bundle_path, test_pictures / "test", "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12


@pytest.mark.parametrize("command", [["verify"], ["measure", "--quick"]])
def test_verify_and_measure_run_with_data(command: list[str], bundle_path: Path, test_pictures: Path) -> None:
    done = cli(*command, bundle_path, "--data", test_pictures, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 1.0


def test_devices_are_listed() -> None:
    assert cli("device", "list").returncode == 0
