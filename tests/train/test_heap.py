"""Freed memory is kept: what a second allocation needs was not given back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import torch, resource
from flyweight.train.heap import keep_freed_memory
torch.set_num_threads(1)
assert keep_freed_memory()
def faults():
    for _ in range(20):
        blocks = [torch.ones(2_000_000) for _ in range(4)]  # 8 MB each
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_step_that_frees_and_allocates_again_meets_no_new_pages() -> None:
    found = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True)
    assert int(found.stdout) < 1000  # 20 times 4 blocks are 160,000 pages of 4 KiB
