"""Write benchmarks/results/NAME.json: claims with interval and n, and the conditions they hold under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from flyweight.files import write_json
from flyweight.runtime.environment import environment

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Claim:
    """One measured number and the target it is held to; `low` and `high` are its interval or range, as `note` says."""

    name: str
    value: float
    target: float
    better: Literal["higher", "lower"]
    unit: str
    low: float
    high: float
    n: int
    note: str = ""


def write_results(name: str, claims: Sequence[Claim], *, seeds: Sequence[int] = (), **details: Any) -> Path:
    """Write results/NAME.json and return its path; `details` stand beside the claims. Raises OutputError."""
    path = RESULTS / f"{name}.json"
    conditions = {**environment(), "seeds": list(seeds)}
    write_json(path, {"claims": [asdict(claim) for claim in claims], "conditions": conditions, **details})
    return path
