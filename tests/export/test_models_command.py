"""`flyweight models`, through the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.cli import run
from flyweight.export.counted import Counted, counted, counted_params
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


def test_rows_are_printed_as_they_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []

    def noted(architecture: Architecture) -> Counted:
        printed.append(capsys.readouterr().out)
        return counted(architecture)

    monkeypatch.setattr("flyweight.export.counted.counted", noted)
    assert run(["models", "tiny_cnn_[46]"]) == 0
    assert printed[0] == ""
    assert "tiny_cnn_4" in printed[1]
    assert "tiny_cnn_6" in capsys.readouterr().out


def test_names_alone_are_listed_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from flyweight.cli import run\n"
        "assert run(['models', 'repvgg', '--names']) == 0"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in found.splitlines()] == [[f"repvgg_a{n}", "RepVGG", "timm"] for n in range(3)]


def test_names_alone_as_json_say_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "repvgg_a0", "--names", "--json"]) == 0
    assert [row["paper"] for row in json.loads(capsys.readouterr().out)] == ["arXiv:2101.03697"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["tiny_cnn_[46]", "--budget", "params<1k"],
            "none of 2 networks meets 'params<1k'; the smallest is params 4.066k",
        ),
        (["tiny_cnn_4", "--budget", "macs<1k"], "tiny_cnn_4 does not meet 'macs<1k'; the smallest is macs 295.1k"),
    ],
)
def test_a_budget_that_nothing_meets_is_told_with_the_smallest(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", *arguments]) == 0
    assert capsys.readouterr().out.startswith(words)
    assert run(["models", *arguments, "--json"]) == 0
    asked = capsys.readouterr()
    assert json.loads(asked.out) == []
    assert asked.err.startswith(words)


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
        (["--names", "--budget", "phone"], "phone"),
        (["tiny_cnn_4", "--image-size", "8"], "image_size is 8 px, and tiny_cnn_4 is tested from 28 px on"),
    ],
)
def test_what_it_cannot_read_is_quoted(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", *arguments]) == 1
    assert words in capsys.readouterr().err
