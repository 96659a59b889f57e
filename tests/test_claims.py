"""`make claims`: measured values against their targets, and the table they leave in the README."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CLAIM = {"file": "speed.json", "name": "ratio", "better": "higher", "target": 2.0, "unit": "ratio"}


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a folder of its own with one claim, no results and a README."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("check_claims", BENCHMARKS / "check_claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "README", tmp_path / "README.md")
    monkeypatch.setattr(module, "STUDIES", tmp_path / "studies")
    (tmp_path / "claims.json").write_text(json.dumps({"claims": [CLAIM]}))
    (tmp_path / "README.md").write_text("before\n<!-- claims -->\nold\n<!-- /claims -->")
    (tmp_path / "results").mkdir()
    return module


def result(folder: Path, value: float) -> None:
    found = {**CLAIM, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 5}
    (folder / "results" / "speed.json").write_text(json.dumps({"claims": [found], "conditions": {}}))


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [("higher", 2.0, "met"), ("higher", 1.99, "missed"), ("lower", 2.0, "met"), ("lower", 2.01, "missed")],
)
def test_a_claim_is_met_at_its_target_and_missed_beyond_it(
    claims: ModuleType, tmp_path: Path, better: str, value: float, verdict: str
) -> None:
    result(tmp_path, value)
    assert claims.judge({**CLAIM, "better": better})["verdict"] == verdict


def test_a_claim_without_a_result_is_not_measured_yet(claims: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main() == 0
    assert "not measured yet  ratio" in capsys.readouterr().out
    assert "ratio" not in claims.README.read_text()


def test_a_missed_claim_stands_in_the_readme_and_the_text_around_it_stays(claims: ModuleType, tmp_path: Path) -> None:
    result(tmp_path, 1.5)
    assert claims.main() == 0
    text = claims.README.read_text()
    assert "| `ratio` | 1.5 [1.4, 1.6], n = 5 | ≥ 2 ratio | missed |" in text
    assert text.startswith("before\n<!-- claims -->\n|")
    assert text.endswith("|\n<!-- /claims -->")
    assert "old" not in text


def test_filling_twice_changes_nothing(claims: ModuleType, tmp_path: Path) -> None:
    result(tmp_path, 2.5)
    claims.main()
    once = claims.README.read_text()
    assert claims.main() == 0
    assert claims.README.read_text() == once


def test_a_readme_without_the_place_is_left_alone_and_said(
    claims: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    claims.README.write_text("no place")
    assert claims.main() == 1
    assert "<!-- claims -->" in capsys.readouterr().err
    assert claims.README.read_text() == "no place"


SHARE = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}
RANGE = {"value": -0.002, "low": -0.01, "high": 0.004}


def test_pages_of_ship_show_every_file_and_every_refusal(claims: ModuleType, tmp_path: Path) -> None:
    p50, ratio = {"ms": 1.5, "low_ms": 1.4, "high_ms": 1.6}, {"value": 4.0, "low": 3.9, "high": 4.1}
    eager = {"file": "eager", "backend": "torch-eager", "precision": "fp32", "p50": p50, "eager_ratio": ratio}
    row = {**eager, "file": "int8", "accuracy": 0.9, "change": RANGE, "size_bytes": 1234, "ships": False}
    table = {
        "architecture": "resnet18", "image_size": 32, "params": 1000, "macs": 2e6, "n": 100,
        "rows": [eager, {**row, "because": ["slower | than before"]}], "refused": {"int8 (C)": "no integer file"},
    }  # fmt: skip
    trial = {
        "before": {"accuracy": 0.91}, "after": {"accuracy": 0.9}, "change": RANGE, "size_ratio": 0.5, "ship": True,
        "because": ["smaller"], "speed": {"after_ms": 1.0, "before_ms": 2.0, "ratio": {"value": 0.5}},
    }  # fmt: skip
    chain = {"network": "resnet18", "steps": ["prune:macs=0.5", "finetune"], "trials": [trial]}
    threshold = {"share": 0.95, "confidence": 0.6, "answered": SHARE, "accuracy": SHARE}
    known = {"thresholds": [threshold], "unlike": [{"name": "mnist", "answered": [SHARE]}]}
    details = {"formats": {"net": table}, "compression": {"half": chain}, "reject": {"net": known}}
    (tmp_path / "results" / "ship.json").write_text(json.dumps({"claims": [], "conditions": {}, "details": details}))
    for page, names in (("shipping.md", ("formats", "compression")), ("serve.md", ("reject",))):
        (tmp_path / page).write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in names))
    assert claims.main() == 0
    shipping = (tmp_path / "shipping.md").read_text()
    assert (
        "| int8 | torch-eager | 90.00 % | -0.20 [-1.00, +0.40] | 1,234 | 1.5 [1.4, 1.6] | 4.00 [3.90, 4.10]" in shipping
    )
    assert "no: slower / than before |" in shipping
    assert "| int8 (C) | | | | | | | refused: no integer file |" in shipping
    assert "| resnet18 | `prune:macs=0.5 finetune` | 91.00 %, 90.00 % |" in shipping
    assert "1 / 2 ms = 0.50 | yes |" in shipping
    assert (
        "| `net` | 0.6000 | 90.0 % [80.0, 95.0] | 90.0 % [80.0, 95.0] | mnist 90.0 % [80.0, 95.0] |"
        in (tmp_path / "serve.md").read_text()
    )


def test_the_page_of_searchers_says_which_repetition_was_not_reached(claims: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"arm": "ours", "repetition": 0, "ratio": 0.1234, "reached": True},
        {"arm": "ours", "repetition": 1, "ratio": 1.02, "reached": False},
    ]
    median = {"ours": {"value": 0.57, "low": 0.1234, "high": 1.02, "n": 2}}
    details = {"rows": rows, "medians": median, "targets": [{"target": 0.8606}, {"target": 0.8563}]}
    file = tmp_path / "results" / "search_efficiency.json"
    file.write_text(json.dumps({"claims": [], "conditions": {}, "details": details}))
    (tmp_path / "tuning.md").write_text("<!-- passes -->\n<!-- /passes -->\n")
    assert claims.main() == 0
    page = (tmp_path / "tuning.md").read_text()
    assert "| searcher | seed 0 | seed 1 | median [smallest, largest] |" in page
    assert "| ours | 0.123 | > 1.020 | 0.570 [0.123, 1.020] |" in page
    assert "| target | 86.06 % | 85.63 % | |" in page


def test_the_page_of_batches_has_a_row_a_network_and_leaves_the_arms_for_the_noise_out(
    claims: ModuleType, tmp_path: Path
) -> None:
    def cell(model: str, batch: int, ms: float | None) -> dict[str, Any]:
        latency = {"ms": ms, "low_ms": ms, "high_ms": ms, "reason": None}
        where = {"backend": "onnxruntime", "threads": 1, "batch": batch}
        return {"model": model, **where, "p50": latency, "images_per_second": 123.4}

    details = {
        "counted": {"net 64 px": {"params": 1234, "macs": 5.6e6}},
        "cells": [cell("net 64 px", 1, 1.234), cell("net 64 px (again)", 1, 1.3), cell("net 64 px", 512, None)],
        "curves": [{"model": "net 64 px", "backend": "onnxruntime", "threads": 1, "knee_batch": None}],
    }
    file = tmp_path / "results" / "tuning_seven_latency.json"
    file.write_text(json.dumps({"claims": [], "conditions": {}, "details": details}))
    (tmp_path / "studies.md").write_text("<!-- tuning_seven latency -->\n<!-- /tuning_seven latency -->\n")
    assert claims.main() == 0
    page = (tmp_path / "studies.md").read_text()
    assert "**onnxruntime, 1 thread**" in page
    assert "| net 64 px | 1,234 | 6 | 1.23 · 123 | – · 123 | – |" in page
    assert "again" not in page
