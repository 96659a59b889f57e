"""The one format of benchmarks/results/*.json: what was claimed, what was measured, under which conditions."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.files import write_json
from flyweight.runtime.environment import environment

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Measured:
    """One claim's number.

    Attributes:
        value: What is compared with the target, usually a median.
        low: Lower end of the range or interval.
        high: Upper end.
        n: Repetitions behind it.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def median_and_range(cls, samples: Sequence[float]) -> Measured:
        """Return the median of repetitions with the smallest and the largest."""
        return cls(statistics.median(samples), min(samples), max(samples), len(samples))


def targets(file: str) -> dict[str, dict[str, Any]]:
    """Return the claims that benchmarks/claims.json asks of a results file, by name."""
    claims = json.loads((HERE / "claims.json").read_text(encoding="utf-8"))["claims"]
    return {claim["name"]: claim for claim in claims if claim["file"] == file}


def write_results(
    file: str,
    measured: Mapping[str, Measured],
    *,
    seeds: Sequence[int],
    conditions: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Path:
    """Write benchmarks/results/`file`: `claims`, `conditions` and, where given, `details`.

    Args:
        file: Name of the results file, as in claims.json.
        measured: By claim; names that claims.json does not know are an error, missing ones are left out.
        seeds: Of everything random.
        conditions: Besides the machine, versions, command and date, which are added.
        details: Whatever else a reader may want: samples, rates of each way.
        folder: Where; by default benchmarks/results.

    Raises:
        KeyError: A measured name has no target.
        OutputError: The file cannot be written.
    """
    asked = targets(file)
    claims = [_row(asked[name], result) for name, result in measured.items()]
    machine = environment()
    content: dict[str, Any] = {"claims": claims, "conditions": {**machine, "seeds": list(seeds), **conditions}}
    if details:
        content["details"] = dict(details)
    path = (folder or HERE / "results") / file
    write_json(path, content)
    return path


def _row(claim: Mapping[str, Any], result: Measured) -> dict[str, Any]:
    return {
        "name": claim["name"],
        "value": result.value,
        "target": claim["target"],
        "better": claim["better"],
        "unit": claim["unit"],
        "low": result.low,
        "high": result.high,
        "n": result.n,
    }
