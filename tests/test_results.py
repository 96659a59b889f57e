"""Committed benchmark results keep to the published form, and no claim's target was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CLAIMS = {claim["name"]: claim for claim in json.loads((BENCHMARKS / "claims.json").read_text())["claims"]}


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_result_file_has_claims_with_ranges_and_the_conditions_they_were_measured_under(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["claims"] or content["details"], "a table claims nothing"
    for claim in content["claims"]:
        assert {"name", "value", "target", "better", "unit", "low", "high", "n"} <= set(claim)
        assert claim["low"] <= claim["value"] <= claim["high"]
        published = CLAIMS.get(claim["name"])
        if published is not None:
            assert (claim["target"], claim["better"]) == (published["target"], published["better"])
            assert published["file"] == path.name
    assert {"cpu", "cores", "versions", "command", "date", "seeds"} <= set(content["conditions"])
