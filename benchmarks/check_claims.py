"""Compare claims.json with the committed results; fill README.md and the pages of docs from them: `make claims`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pages import TABLES

from flyweight.report.study import StudyFacts, markdown

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
STUDIES = HERE.parent / "docs" / "studies"
UNKNOWN = "not measured yet"


def main() -> int:
    """Print a line per claim and fill the README's table; return 1 where a page has no place for it."""
    rows = [judge(claim) for claim in json.loads((HERE / "claims.json").read_text())["claims"]]
    for row in rows:
        print(f"{row['verdict']:>16}  {row['name']:<42} {row['shown']}")
    failed = 0
    for report in sorted(STUDIES.glob("*.json")):
        text = markdown(StudyFacts.model_validate_json(report.read_bytes()))
        failed |= fill(STUDIES.with_suffix(".md"), f"study {report.stem}", text)
    for results, key, page, markers, draw in TABLES:
        file = HERE / "results" / results
        details = json.loads(file.read_text())["details"] if file.exists() else {}
        content = details if key is None else details.get(key)
        if content:
            failed |= fill(STUDIES.parent / page, markers, draw(content))
    return failed | fill(README, "claims", table(rows))


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


def fill(page: Path, name: str, content: str) -> int:
    """Write `content` between the page's markers of that name; return 1 if it has none."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, begin, rest = page.read_text("utf-8").partition(opening)
    _, end, tail = rest.partition(closing)
    if not (begin and end):
        print(f"{page.name} has no {opening} … {closing}", file=sys.stderr)
        return 1
    page.write_text(f"{head}{opening}\n{content}\n{closing}{tail}", "utf-8")
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
