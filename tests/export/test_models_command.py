"""`flyweight models`, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyweight.cli import run
from flyweight.export.counted import counted_params
from flyweight.models.architecture import Architecture
from flyweight.models.card import card_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))


def test_json_lists_the_networks_within_the_limit_with_their_counts(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "tiny_cnn_?", "--budget", "params<9k", "--channels", "1", "--image-size", "28", "--json"]
    assert run(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["tiny_cnn_4", "tiny_cnn_6"]
    # By hand, width 4, one channel: 4, 8, 16, 16 filters of 3 × 3, then 16 × 10; a bias each.
    assert rows[0]["params"] == 9 * (4 + 4 * 8 + 8 * 16 + 16 * 16) + (4 + 8 + 16 + 16) + 160 + 10
    assert rows[0]["macs"] == 9 * (4 * 28**2 + 4 * 8 * 14**2 + 8 * 16 * 7**2 + 16 * 16 * 4**2) + 160


def test_the_table_says_that_costs_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "tiny_cnn_[46]"]) == 0
    printed = capsys.readouterr().out
    assert "counted, not measured" in printed
    assert "tiny_cnn_4" in printed


def test_the_card_of_one_network_says_where_it_comes_from_and_how_it_folds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "mobilenetv3_small_050"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("arXiv:1905.02244", "Apache-2.0", "34 batch norms disappear", "made for 224 px", "as built"):
        assert words in printed
    assert "timm/mobilenetv3_small_050.lamb_in1k" in printed


def test_the_card_of_a_network_with_branches_counts_what_is_merged() -> None:
    card = card_of(Architecture("repvgg_a0", 10))
    assert card.reparameterized == 22
    assert card.left_norms == 0
    folded = counted_params(Architecture("repvgg_a0", 10))
    assert folded < card.params_as_built


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsuch_net"], "nonsuch_net"),
        (["--budget", "params<lots"], "params<lots"),
        (["--budget", "latency_p90<2ms"], "latency_p90"),
    ],
)
def test_what_it_cannot_read_is_quoted(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", *arguments]) == 1
    assert words in capsys.readouterr().err
