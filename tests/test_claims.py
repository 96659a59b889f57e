"""`make claims`: measured values against their targets, and the table they leave in the README."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CLAIM = {"file": "speed.json", "name": "ratio", "better": "higher", "target": 2.0, "unit": "ratio"}


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a folder of its own with one claim, no results and a README."""
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
