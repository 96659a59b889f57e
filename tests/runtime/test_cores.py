"""A worker keeps to one core, and what it times has a core for each thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flyweight.errors import BudgetError
from flyweight.runtime.cores import pin, room_for

if not hasattr(os, "sched_setaffinity"):
    pytest.skip("this system keeps no process to a core", allow_module_level=True)


@pytest.fixture(autouse=True)
def cores() -> Iterator[set[int]]:
    """The cores of this process, which has them again when the test is over."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def cores_of_a_child() -> set[int]:
    code = "import os; print(*os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {int(core) for core in done.stdout.split()}


def test_what_a_pinned_worker_times_has_as_many_cores_as_threads(cores: set[int]) -> None:
    if len(cores) < 2:
        pytest.skip("this process has one core")
    pin(1)
    own = {sorted(cores)[1]}
    assert cores_of_a_child() == own
    with room_for(1):
        assert cores_of_a_child() == own
    with room_for(2):
        lent = cores_of_a_child()
        assert len(lent) == 2
        assert own < lent <= cores
    assert cores_of_a_child() == own


def test_more_threads_than_cores_are_refused(cores: set[int]) -> None:
    pin(0)
    with pytest.raises(BudgetError, match=f"--threads {len(cores) + 1} on {len(cores)} core"), room_for(len(cores) + 1):
        pass
