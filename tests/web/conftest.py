from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyweight.web.ort import FOLDER_VARIABLE, OrtWeb, ort_web

KEPT = Path(__file__).parent.parent.parent / ".cache" / "onnxruntime-web"


@pytest.fixture(scope="session")
def runtime() -> OrtWeb:
    """onnxruntime-web: FLYWEIGHT_ORT_WEB, or fetched once into the checkout's own cache."""
    if os.environ.get(FOLDER_VARIABLE):
        return ort_web()
    kept = os.environ.get("FLYWEIGHT_CACHE")
    os.environ["FLYWEIGHT_CACHE"] = str(KEPT)
    try:
        return ort_web()
    finally:
        if kept is None:
            del os.environ["FLYWEIGHT_CACHE"]
        else:
            os.environ["FLYWEIGHT_CACHE"] = kept
