"""`flyweight schema`: the JSON Schemas of files and of what `--json` prints."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flyweight.errors import DataError

NAMES = (
    "audit", "bundle", "device", "error", "measurement", "published", "range", "recipe", "rejection", "report",
    "result", "study", "sweep", "trial", "tuning", "verified",
)  # fmt: skip


def schema(name: Annotated[str | None, typer.Argument(help="One of the names; without: list them.")] = None) -> None:
    """Print the JSON Schema of a file or of a command's --json."""
    if name is None:
        print("\n".join(NAMES))
        return
    if name not in NAMES:
        raise DataError(f"there is no schema {name!r}", do=f"name one of: {', '.join(NAMES)}")
    print(json.dumps(schema_of(name), indent=2))


def schema_of(name: str) -> dict[str, Any]:
    """Return one of the published JSON Schemas by name."""
    from pydantic import BaseModel, TypeAdapter

    from flyweight.data.audit import Audit
    from flyweight.measure.device import Device
    from flyweight.measure.reject import Rejection
    from flyweight.measure.result import DeviceResult
    from flyweight.measure.speed import Measurement
    from flyweight.measure.table import Sweep
    from flyweight.measure.trial import Trial
    from flyweight.measure.verify import Verified
    from flyweight.published.finding import Finding
    from flyweight.report.facts import Facts
    from flyweight.report.study import StudyFacts
    from flyweight.report.tuning import TuningFacts
    from flyweight.runtime.manifest import Manifest
    from flyweight.train.range_curve import RangeTest
    from flyweight.train.recipe import Recipe

    texts = {"type": "string"}
    if name == "error":
        keys = ("error", "what", "do", "more")
        return {"type": "object", "properties": dict.fromkeys(keys, texts), "required": list(keys), "title": "Error"}
    if name in {"audit", "range"}:
        return TypeAdapter(Audit if name == "audit" else RangeTest).json_schema()
    models: dict[str, type[BaseModel]] = {
        "bundle": Manifest,
        "device": Device,
        "measurement": Measurement,
        "recipe": Recipe,
        "rejection": Rejection,
        "result": DeviceResult,
        "verified": Verified,
    }
    if name == "published":
        count, lines = {"type": "integer"}, {"type": "array", "items": texts}
        found = {"type": "array", "items": TypeAdapter(Finding).json_schema()}
        properties = {"tables": lines, "rows": count, "wrong": count, "unsupported": count, "findings": found}
        return {"type": "object", "properties": properties, "required": list(properties), "title": "Published"}
    reports: dict[str, type[BaseModel]] = {
        "report": Facts,
        "study": StudyFacts,
        "sweep": Sweep,
        "trial": Trial,
        "tuning": TuningFacts,
    }
    if name in reports:
        return reports[name].model_json_schema(mode="serialization")
    return models[name].model_json_schema()


def main() -> None:
    """Write every schema to docs/schemas: `python -m flyweight.cli.schema`."""
    from pathlib import Path

    from flyweight.files import write_json

    for name in NAMES:
        write_json(Path("docs/schemas") / f"{name}.json", schema_of(name))


if __name__ == "__main__":
    main()
