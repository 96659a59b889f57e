"""No test touches the user's cache or settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.browser import Browser, find_chromium


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FLYWEIGHT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["FLYWEIGHT_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, where FLYWEIGHT_DATA names one."""
    found = os.environ.get("FLYWEIGHT_DATA")
    if not found:
        pytest.skip("FLYWEIGHT_DATA names no folder with the real data sets")
    return Path(found)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is not installed (Debian package chromium), and CI=true asks for it")
        pytest.skip("Chromium is not installed (Debian package chromium)")
    with Browser(program) as opened:
        yield opened
