"""Search spaces: what may be drawn, what is refused, and what becomes of it in a recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from flyweight.errors import RecipeError
from flyweight.models.zoo import ZOO
from flyweight.train.recipe import Recipe, load_recipe
from flyweight.tune.space import Param, Space, load_space, shipped_spaces, space_for

RATE = {"key": "optim.lr", "low": 0.001, "high": 0.1, "log": True}
NAME = {"key": "optim.name", "choices": ["sgd", "adamw"]}


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_every_shipped_space_makes_recipes_at_all_its_ends(name: str) -> None:
    space = load_space(name)
    space.check(load_recipe("default"))
    assert space.name == name
    assert all(param.likely is None or param.holds(param.likely) for param in space.params)


def test_every_network_of_the_zoo_has_one_space_of_its_family_with_sources_and_conditions() -> None:
    spaces = [load_space(name) for name in shipped_spaces()]
    named = [family for space in spaces for family in space.families]
    assert sorted(named) == sorted({entry.family for entry in ZOO.values()})
    for space in spaces:
        if space.families:
            assert "arXiv:" in space.source
            assert any(param.when for param in space.params)
            assert all(param.likely is not None for param in space.params)


@pytest.mark.parametrize(
    ("network", "space"),
    [
        ("tiny_resnet8_16", "plain"),
        ("repvgg_a2", "plain"),
        ("mobilenetv3_large_100", "mobile"),
        ("efficientnetv2_s", "mobile"),
        ("mobilevitv2_050", "transformer"),
        ("convnext_tiny", "transformer"),
        ("timm:resnet50", "training"),
    ],
)
def test_the_space_is_the_networks_where_none_is_named(network: str, space: str) -> None:
    assert space_for(network) == space


def test_a_value_and_its_place_are_inverse_and_log_places_are_equal_ratios() -> None:
    param = Param.model_validate(RATE)
    assert param.at(0.5) == pytest.approx(0.01)
    assert param.place(0.01) == pytest.approx(0.5)
    assert (param.at(-3.0), param.at(7.0)) == pytest.approx((0.001, 0.1))
    whole = Param(key="epochs", low=1, high=9, integer=True)
    assert [whole.at(place) for place in (0.0, 0.49, 1.0)] == [1, 5, 9]
    assert isinstance(whole.at(0.3), int)


def test_a_conditional_value_matters_only_where_its_condition_holds() -> None:
    space = Space.model_validate({
        "params": [NAME, *({**RATE, "when": {"optim.name": [name]}} for name in ("sgd", "adamw"))]
    })  # fmt: skip
    assert [param.name for param in space.active({"optim.name": "sgd"})] == ["optim.name", "optim.lr (optim.name=sgd)"]
    assert len({param.name for param in space.params}) == 3


def test_values_become_a_recipe_and_are_read_back_from_it() -> None:
    space = Space.model_validate({"params": [NAME, RATE], "fixed": {"schedule.name": "constant", "ema_decay": None}})
    recipe = space.recipe(Recipe(), {"optim.name": "adamw", "optim.lr": 0.004})
    assert (recipe.optim.name, recipe.optim.lr, recipe.schedule.name) == ("adamw", 0.004, "constant")
    assert space.values_of(recipe) == {"optim.name": "adamw", "optim.lr": 0.004}
    assert space.values_of(recipe.with_settings(["optim.lr=3"])) is None


@pytest.mark.parametrize(
    ("params", "fixed", "says"),
    [
        ([{**RATE, "low": 0.1, "high": 0.001}], {}, "low 0.1 must be below high 0.001"),
        ([{**RATE, "low": 0.0}], {}, "with log, low must be above 0"),
        ([{**RATE, "high": math.inf}], {}, "must be below high inf"),
        ([{"key": "optim.lr"}], {}, "give low and high, or choices"),
        ([{**RATE, "choices": [1, 2]}], {}, "either choices or low and high"),
        ([{"key": "batch_size", "choices": [32]}], {}, "one choice [32] is nothing to search"),
        ([{**RATE, "likely": 1.0}], {}, "likely 1.0 is not inside"),
        ([{**RATE, "role": "scientific"}], {}, "a scientific value needs choices"),
        ([{**RATE, "integer": True}], {}, "integer, but low 0.001"),
        ([{**RATE, "when": {"optim.name": ["sgd"]}}, NAME], {}, "which is not drawn before it"),
        ([NAME, {**RATE, "when": {"optim.name": ["lion"]}}], {}, "optim.name='lion', which is never drawn"),
        ([RATE, RATE], {}, "drawn twice"),
        ([RATE], {"optim.lr": 1.0}, "both drawn and fixed"),
        ([], {}, "at least 1 item"),
        ([{**RATE, "hgih": 1}], {}, "hgih"),
    ],
)
def test_a_bad_space_is_refused_with_what_is_wrong(
    params: list[dict[str, Any]], fixed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    import yaml

    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"params": params, "fixed": fixed}))
    with pytest.raises(RecipeError) as caught:
        load_space(tmp_path / "space.yaml")
    assert says in caught.value.what
    assert "docs/tuning.md" in caught.value.more


@pytest.mark.parametrize("text", ["params: [", "- 1", "7"])
def test_what_is_no_space_at_all_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(RecipeError):
        load_space(tmp_path / "space.yaml")


def test_a_space_of_no_such_name_offers_those_there_are() -> None:
    with pytest.raises(RecipeError, match="training"):
        load_space("trainig")


def test_a_key_that_no_recipe_has_is_refused_before_anything_is_trained() -> None:
    space = Space.model_validate({"params": [{"key": "optim.learning_rate", "low": 0.1, "high": 1.0}]})
    with pytest.raises(RecipeError, match="learning_rate is not a recipe key"):
        space.check(Recipe())
