"""Stages of a run: dual input, merging and progressive unfreezing, from a recipe, for any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flyweight.data.dataset import Dataset
from flyweight.errors import ModelError, RecipeError
from flyweight.train import run as run_module
from flyweight.train.loop import EpochDone, StepDone
from flyweight.train.recipe import Recipe, load_recipe, validated
from flyweight.train.run import run, train_and_wait
from flyweight.train.stages import training_macs
from flyweight.train.trained import Trained

SGD = {"name": "momentum", "lr": 0.01, "weight_decay": 0}
METHOD: dict[str, Any] = {
    "second_view": {"rotate": 15, "brightness": 0.2},
    "ema_decay": None,
    "stages": [
        {"name": "sub-models", "network": "dual", "views": "split", "epochs": 1,
         "optim": {"name": "nadam", "lr": 0.001}},
        {"name": "unfreeze", "network": "merged", "views": "split", "unfreeze": "top_down", "releases": 3, "epochs": 1,
         "optim": SGD},
        {"name": "all", "network": "merged", "epochs": 1, "optim": SGD},
    ],
}  # fmt: skip


def staged(quick: Recipe, **changes: Any) -> Recipe:
    return validated({**quick.model_dump(), **METHOD, **changes}, where="test")


@pytest.mark.parametrize("name", ["pool_cnn", "mobilenetv3_small_050", "squeezenet1_1"])
def test_dual_input_and_unfreezing_run_from_a_recipe_on_unrelated_networks(
    few: Dataset, quick: Recipe, tmp_path: Path, name: str
) -> None:
    trained = train_and_wait(few, staged(quick, model={"name": name}), tmp_path)
    assert [row["stage"] for row in trained.history] == [0, 1, 2, 3, 4]
    assert [step["op"] for step in trained.architecture.surgery] == ["dual", "merge"]
    again = Trained.load(tmp_path)
    images = trained.architecture.example(2)
    with torch.no_grad():
        assert torch.equal(again.network()(images), trained.network()(images))


def test_frozen_layers_and_their_running_statistics_do_not_move(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    model = {"name": "tiny_resnet8_4"}
    start = train_and_wait(few, staged(quick, model=model, stages=[{"epochs": 1}]), tmp_path / "start")
    head_only = staged(quick, model=model, stages=[{"epochs": 1, "unfreeze": 1, "optim": SGD}])
    after = train_and_wait(few, head_only, tmp_path / "after", initial=start)
    changed = {name for name in start.weights if not torch.equal(start.weights[name], after.weights[name])}
    assert changed == {"net.6.weight", "net.6.bias"}


def test_a_stage_costs_less_the_fewer_layers_learn(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    trained = train_and_wait(few, staged(quick, model={"name": "pool_cnn"}), tmp_path)
    # By hand, at 28 px: 60,840 and 217,800 for the convolutions, 5,000 for the outputs; the images need no gradient.
    images = trained.history[0]["train_macs"] / (2 * (2 * 60_840 + 3 * 217_800 + 3 * 5_000))
    assert images == int(images)
    costs = [row["train_macs"] for row in trained.history]
    assert costs[1] < costs[2] < costs[3] == costs[4]
    assert trained.metrics["train_macs"] == sum(costs)


def test_training_macs_are_those_of_a_hand_count() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 5))
    forward = 4 * 9 * 36, 144 * 5
    images = torch.zeros(2, 1, 8, 8)
    # Both layers' weights and the dense layer's input need a gradient; the images do not.
    assert training_macs(network, images) == 2 * forward[0] + 3 * forward[1]
    network[0].requires_grad_(False)
    assert training_macs(network, images) == forward[0] + 2 * forward[1]


def test_grouped_convolutions_cost_their_groups_in_the_backward_pass_too() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ConvTranspose2d(8, 4, 2, groups=4)
    )
    forward = (
        6 * 6 * 8 * 3,
        6 * 6 * 8 * 9,
        6 * 6 * 8 * 4,
    )  # a transposed one: each input pixel, each of its group's weights
    images = torch.zeros(2, 3, 6, 6)
    assert training_macs(network, images) == 2 * forward[0] + 3 * (forward[1] + forward[2])


@pytest.mark.parametrize("stop_after", [3, 9, 13, 27, 40, 44])
def test_a_run_of_stages_stopped_at_any_step_ends_with_the_same_bits(
    few: Dataset, quick: Recipe, tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = staged(quick, model={"name": "pool_cnn"}, ema_decay=0.9)
    whole = train_and_wait(few, recipe, tmp_path / "whole")
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    events = run(few, recipe, tmp_path / "cut")
    steps = 0
    for event in events:
        steps += isinstance(event, StepDone)
        if steps == stop_after:
            break
    events.close()
    resumed = train_and_wait(few, recipe, tmp_path / "cut")
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
    assert [row["train_loss"] for row in resumed.history] == [row["train_loss"] for row in whole.history]


def test_patience_ends_a_stage_and_takes_its_best_weights(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    stuck = {**SGD, "lr": 1e-12}  # nothing changes, so that the first epoch is the best
    recipe = staged(quick, stages=[{"epochs": 9, "patience": 2, "optim": stuck}, {"epochs": 1, "optim": SGD}])
    events = list(run(few, recipe, tmp_path))
    rows = [event.row for event in events if isinstance(event, EpochDone)]
    assert [row["stage"] for row in rows] == [0, 0, 0, 1]


def test_patience_without_stages_ends_the_run(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    stuck = quick.optim.model_copy(update={"lr": 1e-12})
    recipe = quick.model_copy(update={"epochs": 9, "patience": 1, "optim": stuck})
    trained = train_and_wait(few, recipe, tmp_path)
    assert len(trained.history) == 2
    assert trained.metrics["val_accuracy"] == trained.history[0]["val_accuracy"]


def test_epoch_images_shortens_an_epoch_and_changes_its_images(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    trained = train_and_wait(few, quick.model_copy(update={"epoch_images": 128}), tmp_path)
    per_image = {row["train_macs"] / 128 for row in trained.history}
    assert len(per_image) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": [{"unfreeze": 99}]}, "99 of"),
        ({"stages": [{"unfreeze": "blocks.77"}]}, "there is no layer 'blocks.77'"),
        ({"stages": [{"unfreeze": "top_down", "releases": 50}]}, "releases is 50, but the network has"),
    ],
)
def test_a_stage_that_unfreezes_what_is_not_there_is_refused(
    few: Dataset, quick: Recipe, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        train_and_wait(few, staged(quick, **changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": [{"network": "merged"}, {"network": "dual"}]}, "cannot be taken apart"),
        ({"stages": [{"network": "single"}, {"network": "dual"}]}, "single cannot be mixed"),
        ({"stages": [{"network": "dual", "views": "split"}], "second_view": None}, "needs second_view"),
        ({"stages": [{"unfreez": 1}]}, "unfreez is not a recipe key"),
    ],
)
def test_stages_that_cannot_follow_each_other_are_refused(quick: Recipe, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        staged(quick, **changes)


@pytest.mark.parametrize("fold", range(5))
def test_folds_take_turns_at_validating(few: Dataset, fold: int) -> None:
    from flyweight.data.split import split

    parts = [split(few, val_fraction=0.2, fold=index) for index in range(5)]
    others = {int(image) for index, part in enumerate(parts) if index != fold for image in part.val}
    assert not others & {int(image) for image in parts[fold].val}
    assert len(others) + len(parts[fold].val) == len(parts[fold].train) + len(parts[fold].val)


def test_a_fold_that_is_not_there_is_refused(few: Dataset) -> None:
    from flyweight.data.split import split
    from flyweight.errors import DataError

    with pytest.raises(DataError, match="no fold 5 of 5"):
        split(few, val_fraction=0.2, fold=5)


def test_a_large_seed_is_as_good_as_a_small_one(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    trained = train_and_wait(few, quick.model_copy(update={"seed": 2**31 - 1, "epochs": 1}), tmp_path)
    assert len(trained.history) == 1


@pytest.mark.parametrize("name", ["dual-input", "unfreeze"])
def test_the_shipped_recipes_with_stages_can_be_read(name: str) -> None:
    assert load_recipe(name).total_epochs > 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": {"name": "adamww"}}, "no optimizer 'adamww'"),
        ({"views": "split", "augment": {"mixup": 0.2}}, "mixup or cutmix with views: split"),
    ],
)
def test_a_last_stage_that_cannot_run_is_refused_before_the_first_one_runs(
    few: Dataset, quick: Recipe, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    recipe = staged(quick, model={"name": "pool_cnn"}, stages=[{"network": "dual"}, {"network": "merged", **changes}])
    with pytest.raises(RecipeError, match=said):
        train_and_wait(few, recipe, tmp_path)
    assert not (tmp_path / "history.jsonl").exists()


def test_weights_of_another_network_are_refused(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    start = train_and_wait(few, quick.model_copy(update={"epochs": 1}), tmp_path / "start")
    with pytest.raises(ModelError, match="tensors are among the weights"):
        train_and_wait(few, staged(quick, model={"name": "tiny_resnet8_4"}), tmp_path / "other", initial=start)
