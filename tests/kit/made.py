"""Results of devices as the kit or the page would write them, with samples that were chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.runtime.canonical import seal


def runs(ms: float, n: int = 100, processes: int = 3) -> list[dict[str, Any]]:
    """Return processes whose samples lie within 1 % of `ms`, in whole ns."""
    noise = np.random.default_rng(0).uniform(0.995, 1.005, (processes, n))
    return [
        {"samples_ns": [int(ns) for ns in row * ms * 1e6], "steady": True, "warmup_runs": 30, "cpu_share": 1.0}
        for row in noise
    ]


def model(name: str, ms: float, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "sha256": "1" * 64,
        "size_bytes": 1000,
        "threads": 1,
        "clocks": {"model": runs(ms)},
        **changes,
    }


def made(models: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return a sealed result of a Raspberry Pi; `changes` replace its keys before it is sealed."""
    conditions = {
        "cpu": "Cortex-A72", "cores": 4, "os": "Linux 6.12", "versions": {"onnxruntime": "1.31.1"}, "command": "run.py",
        "date": "2026-11-01T12:00:00+00:00", "model": "Raspberry Pi 4 Model B Rev 1.4", "memory_bytes": 4 * 10**9,
        "before": {"governor": "ondemand", "temperature_c": 41.0, "throttled": []},
        "after": {"governor": "ondemand", "temperature_c": 78.5, "throttled": ["throttled since start"]},
    }  # fmt: skip
    return seal(
        {
            "result_version": 1,
            "made_by": "kit",
            "flyweight_version": "0.1.0",
            "bundle": {"name": "thirds", "sha256": "0" * 64},
            "conditions": conditions,
            "models": list(models),
            **changes,
        }
    )


def written(path: Path, result: dict[str, Any]) -> Path:
    path.write_text(json.dumps(result))
    return path
