"""The command line as scripts see it: help pages, exit codes, and errors as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from flyweight.cli import COMMANDS, overview, run
from flyweight.cli.schema import schema_of


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_page_lists_the_command_with_its_text(name: str) -> None:
    rows = [line.split(maxsplit=1) for line in overview().splitlines() if line.startswith("  ")]
    assert [name, COMMANDS[name][2]] in rows


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"flyweight {name}" in capsys.readouterr().out


def test_a_finished_command_ends_with_0() -> None:
    assert run(["recipe", "list"]) == 0


def test_what_the_user_can_mend_ends_with_1(tmp_path: Path) -> None:
    assert run(["verify", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["fitt"], ["fit"], ["verify", "b", "--unknown"], ["measure", "b", "--threads", "x"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert run(arguments) == 2


def test_a_usage_error_has_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run(["verify", "b", "--unknown"])
    what, do, more = capsys.readouterr().err.splitlines()
    assert what.startswith("error: ")
    assert "--unknown" in what
    assert do == "  do: see flyweight verify --help"
    assert more.startswith("  more: ")


def test_an_error_with_json_is_one_object_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["verify", str(tmp_path / "none"), "--json"])
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema_of("error"))
    assert found["error"] == "bundle"
    assert str(tmp_path / "none") in found["what"]
