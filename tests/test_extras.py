"""The optional packages live in one environment, and what cannot live there is not asked for."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module of each package that an extra asks for, where it has another name.
MODULES = {
    "ai-edge-litert": "ai_edge_litert.interpreter", "ai-edge-quantizer": "ai_edge_quantizer",
    "executorch": "executorch.runtime", "scikit-learn": "sklearn", "psycopg": "psycopg",
}  # fmt: skip
TOGETHER = ("train", "report", "hf", "openvino", "litert", "executorch", "tune", "postgresql", "ray")


def asked() -> dict[str, list[str]]:
    """Return the packages of each extra, without other extras and version limits."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names = {
        extra: [re.split(r"[\[<>=]", line, maxsplit=1)[0].lower() for line in lines] for extra, lines in extras.items()
    }
    return {extra: [name for name in found if name != "flyweight"] for extra, found in names.items()}


def locked() -> set[str]:
    lines = (ROOT / "requirements/lock.txt").read_text("utf-8").splitlines()
    return {line.split("==")[0] for line in lines}


def test_every_extra_is_in_the_one_lock() -> None:
    assert {name for names in asked().values() for name in names} <= locked()


def test_litert_torch_is_in_no_extra_and_the_page_says_why() -> None:
    assert "litert-torch" not in locked() | {name for names in asked().values() for name in names}
    assert "litert-torch" in (ROOT / "docs/formats.md").read_text("utf-8")


@pytest.mark.slow
def test_all_extras_import_in_one_process() -> None:
    names = sorted({MODULES.get(name, name) for extra in TOGETHER for name in asked()[extra]})
    code = "import sys; sys.modules['openvino_telemetry'] = None\n" + "\n".join(f"import {name}" for name in names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
