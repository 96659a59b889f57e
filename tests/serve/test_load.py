"""500 requests at once, malformed, huge and truncated ones among them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from benchmarks.api_load import ALLOWED, told, waves
from tests.serve.client import running

pytestmark = pytest.mark.slow
BUNDLE = Path(__file__).parent.parent.parent / "bundles/tiny-cifar10"


def test_under_load_memory_stays_within_512_mb_and_no_answer_is_an_accident() -> None:
    # Patient: on a busy machine it is these callers that are slow.
    with running(BUNDLE, "--patience", 200) as server:
        load = asyncio.run(waves(server.port, server.peak_bytes, 2, seed=9))
    print(told(load))
    assert load.wrong == []
    assert set(load.statuses) <= ALLOWED
    assert set(load.lost) <= {"cut off"}, "everyone else has an answer"
    assert load.statuses[200] > 0
    assert load.peak_bytes <= 512e6
