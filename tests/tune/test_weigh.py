"""What a network costs before it is trained: timed with room for its threads, and marked where it was disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flyweight.data.dataset import Dataset
from flyweight.errors import BudgetError
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source
from flyweight.tune.weigh import weigh_recipe

if not hasattr(os, "sched_setaffinity"):
    pytest.skip("this system keeps no process to a core", allow_module_level=True)

OBJECTIVES = ["accuracy", "latency_p50"]


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Search, Dataset]:
    """A search for which networks are timed."""
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=np.arange(200) % 2)
    return plan_search(
        Source(str(tmp_path / "two.npz")), out=tmp_path / "out", recipe="smoke",
        settings=["model.name=tiny_cnn_4", "data.image_size=8"], stop="none", objectives=OBJECTIVES,
    )  # fmt: skip


@pytest.fixture
def crowded() -> Iterator[None]:
    """One core for this process and for two others that never rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in others:
        process.kill()
        process.wait()
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("crowded")
def test_a_latency_that_other_programs_disturbed_is_kept_as_such(planned: tuple[Search, Dataset]) -> None:
    search, dataset = planned
    recipe = search.trial_recipe({})
    found = weigh_recipe(search, dataset, recipe)
    assert found.disturbed
    (file,) = (search.out / "costs").glob("*.json")
    kept = json.loads(file.read_text())
    assert (kept["disturbed"], kept["threads"]) == (True, 1)
    assert kept["cpu_share"] < 0.9
    assert weigh_recipe(search, dataset, recipe) == found  # and not timed again


def test_more_threads_than_cores_are_refused_before_and_where_they_would_be_timed(
    planned: tuple[Search, Dataset], tmp_path: Path
) -> None:
    search, dataset = planned
    many = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(BudgetError, match=f"--threads {many} on"):
        plan_search(search.source, out=tmp_path / "other", recipe="smoke", objectives=OBJECTIVES, threads=many)
    with pytest.raises(BudgetError, match=f"--threads {many} on"):  # a machine with fewer cores takes part
        weigh_recipe(replace(search, threads=many), dataset, search.trial_recipe({}))
