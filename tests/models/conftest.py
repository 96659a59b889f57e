from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def unfused_attention() -> Iterator[None]:
    """FlopCounterMode does not see inside the CPU's fused attention."""
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)
