"""Pages that must agree with the code: error codes, schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flyweight import errors
from flyweight.cli.schema import NAMES, schema_of
from flyweight.models.zoo import ZOO

DOCS = Path(__file__).parent.parent / "docs"


def test_every_error_code_has_its_heading_and_every_heading_a_code() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FlyweightError)
    ]
    headings = re.findall(r"^## (\S+)$", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(kind.code for kind in kinds)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_schema_is_current(name: str) -> None:
    committed = json.loads((DOCS / "schemas" / f"{name}.json").read_text("utf-8"))
    assert committed == json.loads(json.dumps(schema_of(name))), "run: python -m flyweight.cli.schema"


def test_the_page_of_the_networks_lists_every_family_with_its_paper_and_number() -> None:
    page = (DOCS / "models.md").read_text("utf-8")
    listed = re.search(r"<!-- families -->\n.*\n.*\n((?:.*\n)*)<!-- /families -->", page)
    assert listed is not None
    networks: dict[tuple[str, str, str], list[str]] = {}
    for entry in ZOO.values():
        networks.setdefault((entry.family, entry.paper, entry.library), []).append(entry.name)
    assert listed[1].splitlines() == [
        f"| {' | '.join(facts)} | {f'{len(names)}, such as ' if len(names) > 1 else ''}`{names[0]}` |"
        for facts, names in networks.items()
    ]
