"""`flyweight audit` as people and scripts see it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.cli import run


def test_the_page_shows_every_finding_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "tiny_cnn"]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("arXiv:2501.15547", "wrong", "unsupported", "dual_cnn", "0.17", "334,706"))
    assert shown.splitlines()[-1] == "7 wrong, 11 unsupported, 10 rows checked"


def test_strict_ends_with_1_only_when_something_was_found(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,layers,in_chans,image_size,params\nmine,gap dense5,3,8,20\n", "utf-8")
    assert run(["audit", "tiny_cnn", "--strict"]) == 1
    assert run(["audit", str(tmp_path / "a.csv"), "--strict"]) == 0


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "tiny_cnn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["wrong"], found["unsupported"]) == (10, 7, 11)
    assert len(found["findings"]) == 18
    fields = ["level", "check", "table", "row", "model", "column", "claimed", "counted", "explanation", "do"]
    assert list(found["findings"][0]) == fields


def test_the_list_names_the_shipped_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["tuning_seven", "lightweight_five", "tiny_cnn"]
    assert run(["audit", "--list"]) == 0
    assert "2507.23315" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["no_such_table"]])
def test_errors_have_three_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", *arguments]) == 1
    what, do, more = capsys.readouterr().err.splitlines()
    assert what.startswith("error: ")
    assert "--list" in do
    assert more == "  more: docs/audit-tables.md#the-file"


def test_layer_strings_need_no_torch_and_named_networks_say_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model\nresnet18\n", "utf-8")
    code = f"""
import sys
sys.modules["torch"] = sys.modules["timm"] = None
from flyweight.cli import run
assert run(["audit", "tiny_cnn", "--json"]) == 0
sys.exit(run(["audit", {str(tmp_path / "a.csv")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "flyweight[train]"' in done.stderr
