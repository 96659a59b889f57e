"""Recipes: every shipped one loads, every wrong one is refused with all its problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight.errors import RecipeError
from flyweight.models.zoo import find
from flyweight.train.recipe import Recipe, load_recipe, shipped_recipes


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_names_itself_a_known_network_and_what_it_gives(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.expected
    if recipe.model.name != "from":  # the network of the run it begins with
        find(recipe.model.name)


def test_a_saved_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("cifar10").with_settings(["augment.mixup=0.2", "optim.betas=[0.8, 0.99]"])
    recipe.save(tmp_path / "mine.yaml")
    assert load_recipe(tmp_path / "mine.yaml") == recipe


def test_settings_change_nested_values() -> None:
    recipe = Recipe().with_settings(["optim.lr=0.3", "augment.randaugment.magnitude=5", "threads=2"])
    assert recipe.optim.lr == 0.3
    assert recipe.augment.randaugment is not None
    assert recipe.augment.randaugment.magnitude == 5
    assert recipe.threads == 2


def test_all_problems_are_reported_together_with_the_closest_key(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("epochs: 0\noptim: {learning_rate: 0.1, lr: -1}\nlabel_smoothin: 0.1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "bad.yaml")
    assert "4 problems" in caught.value.what
    assert "did you mean 'label_smoothing'?" in caught.value.what
    assert "optim.lr" in caught.value.what
    assert "epochs" in caught.value.do


@pytest.mark.parametrize("setting", ["epochs", "=3", "optim.lr=[", "epochs=three", "precision=fp8"])
def test_a_setting_that_cannot_be_meant_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        Recipe().with_settings([setting])


def test_a_setting_reaches_one_stage_of_several() -> None:
    recipe = load_recipe("dual-input")
    changed = recipe.with_settings(["stages.0.epochs=1"])
    assert changed.stages[0].epochs == 1
    assert changed.stages[0].model_copy(update={"epochs": recipe.stages[0].epochs}) == recipe.stages[0]
    assert changed.stages[1:] == recipe.stages[1:]


def test_a_setting_of_a_stage_that_is_not_there_says_which_are() -> None:
    with pytest.raises(RecipeError, match="'9' is no place in a list of") as caught:
        load_recipe("dual-input").with_settings(["stages.9.epochs=1"])
    assert "from 0 to" in caught.value.do
