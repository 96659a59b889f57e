"""A run is a function of its recipe: repeated, stopped and resumed, it ends with the same bits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flyweight.data.batches import Batches
from flyweight.data.dataset import Dataset
from flyweight.errors import RecipeError, TrainingError
from flyweight.train import run as run_module
from flyweight.train.loop import EpochDone, StepDone
from flyweight.train.recipe import Recipe
from flyweight.train.run import Finished, Resolving, run, train_and_wait
from flyweight.train.trained import Trained


def weights_equal(one: Trained, other: Trained) -> bool:
    return set(one.weights) == set(other.weights) and all(
        torch.equal(one.weights[name], other.weights[name]) for name in one.weights
    )


def test_the_same_recipe_twice_gives_the_same_bits(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    assert weights_equal(train_and_wait(few, quick, tmp_path / "a"), train_and_wait(few, quick, tmp_path / "b"))


def test_another_seed_gives_other_weights(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    other = quick.model_copy(update={"seed": 1})
    assert not weights_equal(train_and_wait(few, quick, tmp_path / "a"), train_and_wait(few, other, tmp_path / "b"))


@pytest.mark.parametrize("stop_after", [1, 5, 9, 13])
@pytest.mark.parametrize(
    "recipe_change",
    [
        {},
        {"optim": {"name": "adamw", "lr": 0.003}},
        {"optim": {"name": "muon", "lr": 0.02}},
        {"select": "best"},
        {"stages": [{"name": "float", "epochs": 1}, {"name": "int8", "epochs": 1, "quantize": "int8"}]},
    ],
)
def test_a_run_stopped_at_any_step_and_resumed_ends_with_the_same_bits(
    few: Dataset,
    quick: Recipe,
    tmp_path: Path,
    stop_after: int,
    recipe_change: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe.model_validate({**quick.model_dump(), **recipe_change})
    whole = train_and_wait(few, recipe, tmp_path / "whole")
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint after every step
    events = run(few, recipe, tmp_path / "cut")
    steps = 0
    for event in events:
        steps += isinstance(event, StepDone)
        if steps == stop_after:
            break
    events.close()
    resumed = train_and_wait(few, recipe, tmp_path / "cut")
    assert weights_equal(whole, resumed)
    timeless = [{k: v for k, v in row.items() if "second" not in k} for row in resumed.history]
    assert timeless == [{k: v for k, v in row.items() if "second" not in k} for row in whole.history]


def test_train_two_then_two_more_epochs_of_four_equals_four(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    four = quick.model_copy(update={"epochs": 4})
    whole = train_and_wait(few, four, tmp_path / "whole")
    events = run(few, four, tmp_path / "cut")
    for event in events:
        if isinstance(event, EpochDone) and event.row["epoch"] == 2:
            next(events)  # the checkpoint is written before the event; one more step is lost on purpose
            break
    events.close()
    assert weights_equal(whole, train_and_wait(few, four, tmp_path / "cut"))


def test_a_finished_run_is_read_back_and_not_repeated(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    first = train_and_wait(few, quick, tmp_path)
    events = list(run(few, quick, tmp_path))
    assert len(events) == 1
    assert isinstance(events[0], Finished)
    assert weights_equal(first, events[0].trained)


def test_what_probing_decided_is_written_before_the_first_step_and_taken_again(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    probed = quick.model_copy(update={"threads": "auto", "precision": "auto", "channels_last": "auto"})
    events = run(few, probed, tmp_path)
    first = next(events)
    assert isinstance(first, Resolving)
    written = yaml.safe_load((tmp_path / "recipe.resolved.yaml").read_text())
    assert written["resolved"]["threads"] == first.recipe.settled().threads
    assert len(written["resolved"]["probe"]) >= 2
    events.close()
    again = next(run(few, probed, tmp_path))
    assert isinstance(again, Resolving)
    assert again.recipe.resolved == first.recipe.resolved


def test_a_folder_of_another_recipe_is_refused(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    train_and_wait(few, quick, tmp_path)
    with pytest.raises(RecipeError, match="batch_size is 64"):
        train_and_wait(few, quick.model_copy(update={"batch_size": 32}), tmp_path)


def test_a_loss_that_explodes_stops_the_run_and_names_the_steps(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    wild = Recipe.model_validate({**quick.model_dump(), "optim": {"name": "sgd", "lr": 1e12}, "ema_decay": None})
    with pytest.raises(TrainingError, match=r"between steps \d+ and \d+ .*optim.lr=1e\+12"):
        train_and_wait(few, wild, tmp_path)


def test_a_trained_folder_reloads_with_equal_logits(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    trained = train_and_wait(few, quick, tmp_path)
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(trained.network()(images), Trained.load(tmp_path).network()(images))


def test_the_history_has_a_row_per_epoch_and_tensorboard_is_written(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    train_and_wait(few, quick, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
        shown = [(event.step, event.value) for event in curves.Scalars(name)]
        assert shown == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    assert not list(tmp_path.glob("**/*.part"))


def test_unequal_classes_weight_the_loss(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    import numpy as np

    kept = np.flatnonzero((few.labels != 0) | (np.arange(len(few)) % 8 == 0))
    events = run(few.take(kept), quick, tmp_path)
    first = next(events)
    events.close()
    assert isinstance(first, Resolving)
    weights = first.recipe.settled().class_weights
    assert weights is not None
    assert weights[0] == max(weights)
    assert sum(weights) / len(weights) == pytest.approx(1.0, abs=1e-4)


def test_a_folder_is_a_run_of_its_data_and_first_weights_too(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    trained = train_and_wait(few, quick, tmp_path / "run")
    fewer = few.take(np.arange(700))
    with pytest.raises(RecipeError, match="other images or labels"):
        train_and_wait(fewer, quick, tmp_path / "run")
    with pytest.raises(RecipeError, match="other weights to begin with"):
        train_and_wait(few, quick, tmp_path / "run", initial=trained)


def test_a_key_that_only_the_run_in_the_folder_has_is_a_difference(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    wide = quick.with_settings(["model.args.width=6"])
    train_and_wait(few, wide, tmp_path)
    with pytest.raises(RecipeError, match=r"model\.args\.width is 6 there and None here"):
        train_and_wait(few, quick, tmp_path)


@pytest.mark.parametrize(("name", "content"), [("checkpoint.pt", b"rubbish"), ("recipe.yaml", b"colour: red\n")])
def test_a_damaged_file_of_a_run_is_named(
    few: Dataset, quick: Recipe, tmp_path: Path, name: str, content: bytes
) -> None:
    events = run(few, quick, tmp_path)
    next(event for event in events if isinstance(event, EpochDone))
    events.close()
    (tmp_path / name).write_bytes(content)
    with pytest.raises((TrainingError, RecipeError), match=name):
        train_and_wait(few, quick, tmp_path)


def test_a_device_that_torch_cannot_use_is_refused(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot use the device 'foo'"):
        train_and_wait(few, quick, tmp_path, device="foo")


def test_the_seconds_of_an_epoch_survive_a_stop(
    few: Dataset, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    events = run(few, quick, tmp_path)
    for event in events:
        if isinstance(event, StepDone) and event.step == event.steps - 1:
            break
    events.close()
    seconds = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["position"]["seconds"]
    assert seconds > 0
    assert train_and_wait(few, quick, tmp_path).history[0]["train_seconds"] > seconds


def test_an_epoch_says_what_of_its_seconds_went_in_waiting_for_batches(
    few: Dataset, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Batches._batch

    def slow(self: Batches, *place: Any) -> Any:
        time.sleep(0.05 * self.train)
        return made(self, *place)

    monkeypatch.setattr(Batches, "_batch", slow)
    trained = train_and_wait(few, quick, tmp_path)
    steps = -(-trained.data["train"] // quick.batch_size)
    for row in trained.history:
        assert 0.05 * (steps - 1) <= row["load_seconds"] < row["train_seconds"]
        assert row["val_seconds"] > 0
        assert row["core_seconds"] > 0


def test_the_seconds_of_waiting_survive_a_stop_too(
    few: Dataset, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    events = run(few, quick, tmp_path)
    next(event for event in events if isinstance(event, StepDone))
    next(events)  # the checkpoint of the first step is written
    events.close()
    seconds = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["position"]["load_seconds"]
    assert seconds > 0
    assert train_and_wait(few, quick, tmp_path).history[0]["load_seconds"] > seconds
