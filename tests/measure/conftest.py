from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.tiny_bundle import write_bundle, write_pictures


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def test_pictures(tmp_path: Path) -> Path:
    """A data set of three classes whose official test part has 12 images."""
    write_pictures(tmp_path / "data/train", per_class=2)
    write_pictures(tmp_path / "data/test", per_class=4)
    return tmp_path / "data"
