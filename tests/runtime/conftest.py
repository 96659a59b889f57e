from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.tiny_bundle import write_bundle, write_pictures


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")
