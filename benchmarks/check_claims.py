"""Compare benchmarks/claims.json with the committed results and fill the table in README.md: `make claims`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- claims -->", "<!-- /claims -->"
UNKNOWN = "not measured yet"


def main() -> int:
    """Print a line per claim and fill the README's table; return 1 where the README has no place for it."""
    rows = [judge(claim) for claim in json.loads((HERE / "claims.json").read_text())["claims"]]
    for row in rows:
        print(f"{row['verdict']:>16}  {row['name']:<42} {row['shown']}")
    return fill_readme(rows)


def judge(claim: dict[str, Any]) -> dict[str, str]:
    """Return the claim's verdict (met, missed, not measured yet) and its measured value beside the target."""
    relation = "≥" if claim["better"] == "higher" else "≤"
    target = f"{relation} {claim['target']:g} {claim['unit']}"
    found = measured(claim)
    if found is None:
        return {"name": claim["name"], "verdict": UNKNOWN, "target": target, "value": "–", "shown": target}
    value = f"{found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}], n = {found['n']}"
    sign = 1 if claim["better"] == "higher" else -1
    verdict = "met" if sign * found["value"] >= sign * claim["target"] else "missed"
    return {"name": claim["name"], "verdict": verdict, "target": target, "value": value, "shown": f"{value} ({target})"}


def measured(claim: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result committed under the claim's file and name."""
    path = HERE / "results" / claim["file"]
    if not path.exists():
        return None
    results: list[dict[str, Any]] = json.loads(path.read_text())["claims"]
    return next((result for result in results if result["name"] == claim["name"]), None)


def fill_readme(rows: list[dict[str, str]]) -> int:
    """Write the measured claims between the README's markers; return 1 if it has none."""
    text = README.read_text("utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        print(f"{README.name} has no {BEGIN} … {END}", file=sys.stderr)
        return 1
    README.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{tail}", "utf-8")
    return 0


def table(rows: list[dict[str, str]]) -> str:
    """Return the Markdown table of the claims that were measured, missed ones included."""
    lines = ["| claim | measured, range, n | target | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{row['name']}` | {row['value']} | {row['target']} | {row['verdict']} |"
        for row in rows
        if row["verdict"] != UNKNOWN
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
