"""The format of benchmarks/results/*.json that scripts and the README rely on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def results_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_file", BENCHMARKS / "results_file.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["results_file"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_results_file_holds_target_value_range_and_conditions(results_file: ModuleType, tmp_path: Path) -> None:
    measured = {"cli_help_seconds": results_file.Measured.median_and_range([0.3, 0.1, 0.2])}
    path = results_file.write_results(
        "train_speed.json", measured, seeds=[0], conditions={"threads": 2}, folder=tmp_path
    )
    content = json.loads(path.read_text())
    asked = {claim["name"]: claim for claim in json.loads((BENCHMARKS / "claims.json").read_text())["claims"]}
    target = asked["cli_help_seconds"]["target"]
    row = {"name": "cli_help_seconds", "value": 0.2, "target": target, "better": "lower", "unit": "s"}
    assert content["claims"] == [row | {"low": 0.1, "high": 0.3, "n": 3}]
    assert {"cpu", "versions", "command", "date", "seeds", "threads"} <= set(content["conditions"])


def test_a_number_without_a_claim_is_refused(results_file: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="invented"):
        results_file.write_results(
            "train_speed.json",
            {"invented": results_file.Measured(1, 1, 1, 1)},
            seeds=[],
            conditions={},
            folder=tmp_path,
        )
