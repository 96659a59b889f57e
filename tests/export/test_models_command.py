"""`flyweight models`, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyweight.cli import run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))


def test_json_lists_the_networks_within_the_limit_with_their_counts(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "tiny_cnn_?", "--max-params", "9k", "--channels", "1", "--image-size", "28", "--json"]
    assert run(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["tiny_cnn_4", "tiny_cnn_6"]
    # By hand, width 4, one channel: 4, 8, 16, 16 filters of 3 × 3, then 16 × 10; a bias each.
    assert rows[0]["params"] == 9 * (4 + 4 * 8 + 8 * 16 + 16 * 16) + (4 + 8 + 16 + 16) + 160 + 10
    assert rows[0]["macs"] == 9 * (4 * 28**2 + 4 * 8 * 14**2 + 8 * 16 * 7**2 + 16 * 16 * 4**2) + 160


def test_the_table_says_that_costs_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "tiny_cnn_4"]) == 0
    printed = capsys.readouterr().out
    assert "counted, not measured" in printed
    assert "tiny_cnn_4" in printed


@pytest.mark.parametrize(
    ("arguments", "words"), [(["nonsuch_net"], "nonsuch_net"), (["--max-params", "lots"], "'lots'")]
)
def test_what_it_cannot_read_is_quoted(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", *arguments]) == 1
    assert words in capsys.readouterr().err
