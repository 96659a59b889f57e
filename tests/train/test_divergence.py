"""A run that diverges is stopped, says so again when it is called again, and a healthy one never is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from flyweight.data.dataset import Dataset
from flyweight.train import run as run_module
from flyweight.train.divergence import NOTHING, RISEN, Diverged, divergence
from flyweight.train.loop import StepDone
from flyweight.train.recipe import Recipe
from flyweight.train.run import run, train_and_wait
from flyweight.train.trained import Trained

CHANCE = math.log(10)


def rows(*losses: float, start: float = 2.4) -> list[dict[str, float]]:
    found = [{"stage": 0, "train_loss": loss} for loss in losses]
    found[0]["start_loss"] = start
    return found


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param((2.1, 1.7, 1.5, 1.3, 1.2), id="as usual"),
        pytest.param((2.3, 1.9, 240.0, 1.8, 1.6), id="a spike of one epoch"),
        pytest.param((2.3, 90.0, 2.1, 80.0, 2.3, 1.9), id="spikes after each of which it learns again"),
        pytest.param((2.43, 2.42, 2.42, 2.14, 1.8, 1.67), id="a rate too high that falls in time, as recorded"),
        pytest.param((2.31, 2.30, 2.30, 2.30, 2.29), id="nothing learned for long"),
        pytest.param((3.1, 2.9, 2.6, 2.2, 1.8), id="above chance at first, and falling"),
        pytest.param((2.1, 0.9, 1.9, 2.2, 2.3, 2.4), id="forgotten again, which is no infinity"),
    ],
)
def test_a_run_that_may_still_learn_is_left_alone(losses: tuple[float, ...]) -> None:
    for epochs in range(1, len(losses) + 1):
        assert divergence(rows(*losses)[:epochs], CHANCE) == ""


def test_a_loss_far_above_its_start_for_two_epochs_is_divergence() -> None:
    high = 1.01 * RISEN * 2.4
    assert divergence(rows(2.0, high), CHANCE) == ""
    assert divergence(rows(2.0, high, high), CHANCE).endswith("was 2, 3.64, 3.64, and 2.4 at the start")


def test_a_loss_that_rose_once_and_learns_nothing_after_is_divergence() -> None:
    nothing = 1.01 * NOTHING * 2.4
    assert divergence(rows(14.5, nothing), CHANCE) == ""
    assert divergence(rows(14.5, nothing, nothing), CHANCE) != ""


# Losses of small networks at absurd rates, as recorded: each ended at the accuracy of chance.
@pytest.mark.parametrize(
    ("losses", "seen_after"),
    [
        ((4.95, 8.52, 3.78, 2.57, 2.39, 2.33), 2),
        ((103.74, 67.35, 42.34, 27.82, 5.94, 2.77), 2),
        ((6.32, 3.19, 2.94, 2.72, 2.50, 2.35), 3),
        ((14.46, 2.43, 2.37, 2.37, 2.34, 2.31), 3),
        ((985.62, 2.43, 2.38, 2.37, 2.35, 2.32), 3),
    ],
)
def test_recorded_runs_that_were_lost_are_seen_within_three_epochs(losses: tuple[float, ...], seen_after: int) -> None:
    seen = [bool(divergence(rows(*losses)[:epochs], CHANCE)) for epochs in range(1, 7)]
    assert seen.index(True) + 1 == seen_after


def test_a_network_that_begins_with_a_large_loss_is_measured_against_that() -> None:
    assert divergence(rows(30.0, 20.0, 12.0, start=40.0), CHANCE) == ""
    assert divergence(rows(70.0, 80.0, start=40.0), CHANCE) != ""


@pytest.fixture
def wild(quick: Recipe) -> Recipe:
    """A rate at which a small network without batch norm blows up, with numbers that stay finite."""
    return quick.with_settings(
        ["model.name=pool_cnn", "optim.name=adamw", "optim.lr=1", "ema_decay=null", "epochs=5", "clip_grad_norm=5",
         "schedule.name=constant"]
    )  # fmt: skip


def test_a_finite_divergence_ends_the_run_and_says_when_and_what_to_do(
    few: Dataset, wild: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"training loss .* seen after epoch \d .*optim.lr=1,") as raised:
        train_and_wait(few, wild, tmp_path)
    assert "--set optim.lr=0.1" in raised.value.do
    assert 2 <= raised.value.epoch < 5
    assert (tmp_path / "checkpoint.pt").exists()
    assert json.loads((tmp_path / "diverged.json").read_text())["epoch"] == raised.value.epoch
    with pytest.raises(Diverged, match="training loss of the last epochs") as again:  # at once, from the folder
        next(run(few, wild, tmp_path))
    assert again.value.epoch == raised.value.epoch
    assert "delete" in again.value.do


def test_a_run_stopped_and_resumed_diverges_in_the_same_epoch(
    few: Dataset, wild: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Diverged) as whole:
        train_and_wait(few, wild, tmp_path / "whole")
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    events = run(few, wild, tmp_path / "cut")
    assert [event for event, _ in zip(events, range(12), strict=False) if isinstance(event, StepDone)]
    events.close()
    with pytest.raises(Diverged) as cut:
        train_and_wait(few, wild, tmp_path / "cut")
    assert (cut.value.epoch, cut.value.what) == (whole.value.epoch, whole.value.what)


def test_a_loss_that_is_not_finite_is_divergence_too_and_is_not_tried_again(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    infinite = quick.with_settings(["optim.lr=1e12", "ema_decay=null"])
    with pytest.raises(Diverged, match=r"optim.lr=1e\+12") as raised:
        train_and_wait(few, infinite, tmp_path)
    assert raised.value.epoch == 1
    with pytest.raises(Diverged):
        next(run(few, infinite, tmp_path))


def test_where_the_recipe_clips_the_history_has_the_norms_of_the_gradient(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    clipped = train_and_wait(few, quick.with_settings(["clip_grad_norm=1e9"]), tmp_path / "clipped")
    for row in clipped.history:
        assert 0 < row["grad_norm"] <= row["grad_norm_max"]
    plain = train_and_wait(few, quick, tmp_path / "plain")
    assert "grad_norm" not in plain.history[0]
    # A norm that is never reached clips nothing: to look at the gradient changes no bit.
    assert all(torch.equal(plain.weights[name], clipped.weights[name]) for name in plain.weights)


def test_the_norms_of_an_epoch_survive_a_stop(
    few: Dataset, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick.with_settings(["clip_grad_norm=1"])
    whole = train_and_wait(few, recipe, tmp_path / "whole")
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    events = run(few, recipe, tmp_path / "cut")
    next(event for event in events if isinstance(event, StepDone) and event.step == 4)
    events.close()
    assert traces(train_and_wait(few, recipe, tmp_path / "cut")) == traces(whole)


def traces(trained: Trained) -> list[tuple[float | None, ...]]:
    return [tuple(row.get(key) for key in ("grad_norm", "grad_norm_max", "start_loss")) for row in trained.history]


def test_the_first_loss_of_a_fresh_network_is_about_that_of_chance(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    first, second = train_and_wait(few, quick, tmp_path).history
    assert first["start_loss"] == pytest.approx(CHANCE, abs=0.4)
    assert "start_loss" not in second


def test_a_finished_run_knows_its_accuracy_on_as_many_training_images_as_validate(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    metrics = train_and_wait(few, quick, tmp_path).metrics
    assert metrics["train_n"] == metrics["val_n"]
    assert 0 <= metrics["train_accuracy"] <= 1
