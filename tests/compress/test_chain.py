"""Chains of steps: their order, their folders, what is written and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight.cli import run as command
from flyweight.cli.compress import written
from flyweight.compress.chain import Compressed, Request, compress, in_order, parse_steps, promised
from flyweight.compress.files.variant import Conditions
from flyweight.data.dataset import Dataset
from flyweight.errors import CompressError, OrderError
from flyweight.export import export
from flyweight.measure.trial import Trial
from flyweight.measure.verify import verify
from flyweight.runtime.bundle import Bundle
from flyweight.train.trained import Trained

LOOSE = Conditions(timing="none", margin=0.3)


def follow(request: Request) -> Compressed:
    *_, last = compress(request)
    assert isinstance(last, Compressed)
    return last


def test_a_step_that_changes_the_network_cannot_follow_one_that_changes_its_file() -> None:
    with pytest.raises(OrderError, match="prune changes the network and comes after int8") as caught:
        in_order(parse_steps(["finetune", "int8", "prune:macs=0.5"]))
    assert caught.value.do == "put prune before int8"


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (["qat", "prune:macs=0.5"], "prune cannot come after qat: the network is on int8 levels"),
        (["qat", "finetune", "qat"], "qat cannot be done twice"),
        (["exit", "qat"], "qat cannot come after exit: the network then has two heads"),
        (["exit", "finetune", "int8"], "int8 cannot come after exit: layers then lie inside a branch"),
        (["qat", "int8"], "int8 cannot come after qat: its file is int8 already"),
        (["exit", "palette"], "palette cannot come after exit"),
    ],
)
def test_what_a_method_cannot_follow_is_said_before_anything_is_trained(steps: list[str], why: str) -> None:
    with pytest.raises(OrderError) as caught:
        in_order(parse_steps(steps))
    assert why in caught.value.what


def test_every_order_that_makes_sense_is_taken() -> None:
    for steps in (
        ["prune:macs=0.5", "distill", "qat"],
        ["prune:macs=0.5", "finetune", "exit", "fp16"],
        ["fold", "int8"],
    ):
        networks, files = in_order(parse_steps(steps))
        assert [step.method for step in (*networks, *files)] == [step.partition(":")[0] for step in steps]


def test_a_run_that_has_been_through_qat_is_refused_before_the_steps_ahead_of_the_wrong_one_train(
    few: Dataset, trained: Trained, tmp_path: Path
) -> None:
    levels = trained.architecture.quantize()
    network = trained.architecture.operate(trained.network(), levels.surgery[len(trained.architecture.surgery) :])
    replace(trained, architecture=levels, weights=network.state_dict()).save(tmp_path / "run")
    request = Request(tmp_path / "run", parse_steps(["finetune", "prune:macs=0.5"]), few, tmp_path / "out", LOOSE)
    with pytest.raises(OrderError, match="prune cannot come after qat"):
        follow(request)
    assert not (tmp_path / "out/steps").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("prun:macs=0.5", "no compression method 'prun'"),
        ("prune:mac=0.5", "did you mean 'macs'"),
        ("prune", "give one of macs, params, size, latency, not 0"),
        ("finetune:epochs=0", "epochs: Input should be greater than or equal to 1"),
        ("int8:calibration=magic", "calibration: Input should be"),
        ("finetune:epochs", "not of the form"),
        ("prune:macs=0.5,macs=0.9", "says macs twice"),
        ("prune:macs=nan", "nan"),
        ("prune:macs=-0.5", "leaves nothing"),
        ("prune:macs=inf", "inf"),
        ("prune:latency=1ms@pi4", "latency is measured on this machine"),
        ("finetune:lr=inf", "lr: Input should be a finite number"),
    ],
)
def test_a_step_that_cannot_be_read_says_what_is_wrong_with_it(text: str, why: str) -> None:
    with pytest.raises(CompressError) as caught:
        in_order(parse_steps([text]))
    assert why in caught.value.what


def test_a_chain_promises_what_its_steps_promise() -> None:
    assert promised(parse_steps(["fold", "finetune"])) == ()
    assert promised(parse_steps(["exit"])) == ("faster",)
    assert promised(parse_steps(["finetune", "prune:macs=0.5"])) == ("smaller", "faster")


def test_no_step_is_a_typed_error() -> None:
    with pytest.raises(CompressError, match="no step"):
        in_order([])


def test_a_bundle_without_its_training_weights_cannot_be_pruned(few: Dataset, bundle: Bundle, tmp_path: Path) -> None:
    request = Request(bundle.path, parse_steps(["prune:macs=0.5"]), few, tmp_path / "out", LOOSE)
    with pytest.raises(OrderError, match="no finished run, nor a bundle that carries its training weights"):
        follow(request)


def test_a_bundle_in_an_archive_is_changed_by_the_weights_it_carries(
    few: Dataset, trained: Trained, tmp_path: Path
) -> None:
    export(trained, few, tmp_path / "small.zip")
    request = Request(tmp_path / "small.zip", parse_steps(["fold"]), few, tmp_path / "out", LOOSE, device="cpu")
    found = follow(request)
    assert found.trained is not None
    assert found.trained.architecture.surgery


def test_a_chain_of_both_families_ships_and_goes_on_where_it_was(
    few: Dataset, run_folder: Path, tmp_path: Path
) -> None:
    request = Request(run_folder, parse_steps(["fold", "fp16"]), few, tmp_path / "out", LOOSE, device="cpu")
    found = follow(request)
    assert found.ship
    assert found.bundle is not None
    assert (sorted(found.bundle.variants), found.bundle.default) == (["fp16", "fp32"], "fp16")
    assert verify(tmp_path / "out/bundle").ok
    trials = [Trial.model_validate(one) for one in json.loads((tmp_path / "out/trial.json").read_text())]
    assert [trial.ship for trial in trials] == [True, True]
    assert trials[1].size_ratio < 0.7
    weights = tmp_path / "out/steps/01-fold/weights.safetensors"
    written = weights.stat().st_mtime_ns
    assert follow(request).ship
    assert weights.stat().st_mtime_ns == written
    other = Request(run_folder, parse_steps(["prune:macs=0.9"]), few, tmp_path / "out", LOOSE, device="cpu")
    (tmp_path / "out/steps/01-fold").rename(tmp_path / "out/steps/01-prune")
    with pytest.raises(CompressError, match="holds another step"):
        follow(other)


def test_the_command_refuses_with_exit_code_1_and_shows_why_on_a_page(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["quantize", str(bundle.path), "--data", "sample", "--step", "int8:images=32,keep=none"]
    code = command([*asked, "--out", str(out), "--timing", "none", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1
    assert found["ship"] is False
    assert any("nothing was timed" in reason for reason in found["trials"][0]["because"])
    page = (out / "trial.html").read_text("utf-8")
    assert "do not ship" in page
    assert "nothing was timed" in page
    assert not (out / "bundle").exists()


def test_a_file_against_itself_does_not_ship_since_it_is_no_smaller(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["trial", str(bundle.path), "--data", "sample", "--variant", "fp32", "--against", "fp32", "--json"]
    assert command([*asked, "--out", str(tmp_path), "--timing", "none", "--margin", "2"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["change"]["value"], found["flipped"], found["size_ratio"]) == (0.0, 0, 1.0)
    assert found["promises"] == ["smaller", "faster"]
    assert any("1.00 of the" in reason for reason in found["because"])


def test_a_file_that_promises_nothing_only_must_be_no_worse(bundle: Bundle, tmp_path: Path) -> None:
    asked = ["trial", str(bundle.path), "--data", "sample", "--variant", "fp32", "--against", "fp32"]
    assert command([*asked, "--out", str(tmp_path), "--timing", "none", "--margin", "2", "--promise", "none"]) == 0


def test_a_promise_that_is_none_is_refused_by_name(bundle: Bundle, tmp_path: Path) -> None:
    asked = ["trial", str(bundle.path), "--data", "sample", "--variant", "fp32", "--promise", "cheaper"]
    assert command([*asked, "--out", str(tmp_path)]) == 2


STRICT = Conditions(timing="none", margin=0.0001)


def test_a_bundle_says_in_its_provenance_that_it_was_written_though_the_trial_said_no(
    few: Dataset, run_folder: Path, tmp_path: Path
) -> None:
    request = Request(run_folder, parse_steps(["fold"]), few, tmp_path / "out", STRICT, anyway=True, device="cpu")
    found = follow(request)
    assert not found.ship
    assert found.bundle is not None
    assert found.bundle.provenance["trial"] == found.trials[0].record()
    assert verify(tmp_path / "out/bundle").ok
    assert written(found, anyway=True).endswith(
        "with, because of --anyway, what does not ship: " + found.trials[0].name
    )


def test_a_bundle_of_an_earlier_run_does_not_stay_beside_a_trial_that_says_no(
    few: Dataset, bundle: Bundle, tmp_path: Path
) -> None:
    steps, out = parse_steps(["fp16"]), tmp_path / "out"
    assert follow(Request(bundle.path, steps, few, out, LOOSE)).ship
    assert (out / "bundle").exists()
    found = follow(Request(bundle.path, steps, few, out, STRICT))
    assert (found.ship, found.bundle) == (False, None)
    assert not (out / "bundle").exists()
    assert written(found, anyway=False) == "not written: the trial says no"


def test_the_source_is_not_taken_for_what_an_earlier_run_left(few: Dataset, bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    assert not follow(Request(tmp_path / "bundle", parse_steps(["fp16"]), few, tmp_path, STRICT)).ship
    assert (tmp_path / "bundle").exists()


def test_what_ships_is_told_apart_from_what_does_not(few: Dataset, bundle: Bundle, tmp_path: Path) -> None:
    # int8 promised to be faster, and nothing is timed.
    steps = parse_steps(["fp16", "int8:images=32,keep=none"])
    found = follow(Request(bundle.path, steps, few, tmp_path / "out", LOOSE))
    assert found.bundle is not None
    assert sorted(found.bundle.variants) == ["fp16", "fp32"]
    assert (
        written(found, anyway=False) == f"{tmp_path / 'out/bundle'}, without what does not ship: {found.trials[1].name}"
    )
