"""What a search hands out was trained in full, however well something began that was left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial

from flyweight.train.recipe import load_recipe
from flyweight.tune.outcome import write_recipes
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source
from flyweight.tune.suggest import distribution
from flyweight.tune.trials import BRACKET, COSTS, rung_key
from flyweight.tune.winners import best_first, front_of

SPACE = {"params": [{"key": "optim.lr", "low": 0.001, "high": 1.0, "log": True}]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "two.npz"
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3)).astype(np.uint8)
    np.savez(file, images=images, labels=np.arange(400) % 2)
    return str(file)


def search_of(data: str, folder: Path, *objectives: str) -> Search:
    """A search of three rungs."""
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    found, _ = plan_search(
        Source(data), out=folder / "out", recipe="smoke", settings=["epochs=27"], space=str(folder / "space.yaml"),
        objectives=objectives, shrinks=["epochs"],
    )  # fmt: skip
    assert found.full == 2
    return found


def trials_of(
    search: Search, scores: Sequence[Mapping[int, float]], sizes: Sequence[float] | None = None
) -> list[FrozenTrial]:
    """Return trials with these scores by rung."""
    (param,) = search.space.params
    found = []
    for number, by_rung in enumerate(scores):
        results = {rung_key(rung): {"score": score, "images": 9, "seconds": 1.0} for rung, score in by_rung.items()}
        costs = {} if sizes is None else {COSTS: {"size": sizes[number]}}
        trial = create_trial(
            state=TrialState.RUNNING,
            params={param.name: 0.01 * (number + 1)},
            distributions={param.name: distribution(param)},
            user_attrs={BRACKET: 0, **results, **costs},
        )
        trial.number = number
        found.append(trial)
    return found


def numbers(trials: Sequence[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_a_short_training_with_a_lucky_score_never_outranks_a_full_one(data: str, tmp_path: Path) -> None:
    search = search_of(data, tmp_path)
    trials = trials_of(search, [{0: 0.4, 1: 0.5, 2: 0.7}, {0: 0.4, 1: 0.62}])  # expected of the second: 0.82
    assert numbers(best_first(search, trials)) == [0, 1]
    write_recipes(search, trials)
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert recipe.optim.lr == 0.01
    assert "70.00 %, trial 0" in str(recipe.expected)


def test_before_the_first_full_training_the_best_expected_stands_in_and_a_longer_rung_breaks_ties(
    data: str, tmp_path: Path
) -> None:
    search = search_of(data, tmp_path)
    assert numbers(best_first(search, trials_of(search, [{0: 0.9}, {0: 0.4, 1: 0.5}, {0: 0.4, 1: 0.6}]))) == [2, 1]
    assert best_first(search, trials_of(search, [{0: 0.9}, {}])) == []


def test_of_equal_scores_the_smaller_network_is_best_and_the_best_is_on_the_front(data: str, tmp_path: Path) -> None:
    search = search_of(data, tmp_path, "accuracy", "size")
    full = {0: 0.5, 1: 0.6, 2: 0.7}
    trials = trials_of(search, [full, full, {**full, 2: 0.6}, {0: 0.5, 1: 0.9}], [139.0, 63.0, 20.0, 10.0])
    assert numbers(best_first(search, trials))[0] == 1
    assert numbers(front_of(search, trials)) == [1, 2]
    left = trials_of(search, [{1: 0.6}, {1: 0.6}, {1: 0.5}, {0: 0.9}], [139.0, 63.0, 20.0, 10.0])
    assert numbers(best_first(search, left))[0] == 1
    assert numbers(front_of(search, left)) == [1, 2]


def test_the_recipe_of_a_trial_that_left_the_front_goes(data: str, tmp_path: Path) -> None:
    search = search_of(data, tmp_path, "accuracy", "size")
    full = {0: 0.5, 1: 0.6, 2: 0.7}
    first = trials_of(search, [full], [139.0])
    write_recipes(search, first)
    assert [file.name for file in (tmp_path / "out" / "recipes").iterdir()] == ["0000.yaml"]
    write_recipes(search, trials_of(search, [full, full], [139.0, 63.0]))
    assert [file.name for file in (tmp_path / "out" / "recipes").iterdir()] == ["0001.yaml"]


def test_with_one_objective_there_is_no_front(data: str, tmp_path: Path) -> None:
    search = search_of(data, tmp_path)
    trials = trials_of(search, [{0: 0.5, 1: 0.6, 2: 0.7}])
    assert front_of(search, trials) == []
    write_recipes(search, trials)
    assert not (tmp_path / "out" / "recipes").exists()
