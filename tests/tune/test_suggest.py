"""Suggestions: the same again for the same trials, by every sampler, and better than chance where there is a model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from flyweight.errors import RecipeError
from flyweight.tune.axes import axes_of, placed, value_at
from flyweight.tune.space import Space, Value, keys_of, load_space
from flyweight.tune.stop import unlikely_to_improve
from flyweight.tune.suggest import SAMPLERS, STARTUP, Seen, directions_of, expected_at_full, leaders, suggest

CONDITIONAL = Space.model_validate({
    "params": [
        {"key": "optim.name", "choices": ["sgd", "adamw"]},
        {"key": "optim.lr", "low": 0.01, "high": 1.0, "log": True, "when": {"optim.name": ["sgd"]}},
        {
            "key": "optim.lr", "low": 0.0001, "high": 0.01, "log": True, "likely": 0.001,
            "when": {"optim.name": ["adamw"]},
        },
        {"key": "epochs", "low": 1, "high": 9, "integer": True},
    ]
})  # fmt: skip
PLANE = Space.model_validate({"params": [{"key": "x", "low": 0.0, "high": 1.0}, {"key": "y", "low": 0.0, "high": 1.0}]})
GRID = Space.model_validate({
    "params": [{"key": "batch_size", "choices": [32, 64, 128]}, {"key": "optim.name", "choices": ["sgd", "adamw"]}]
})  # fmt: skip
ONE = directions_of(["accuracy"])


def search(
    space: Space, sampler: str, trials: int, score: Callable[[dict[str, Value]], float], *, seed: int = 0
) -> list[Seen]:
    seen: list[Seen] = []
    state: dict[str, object] = {}
    for _ in range(trials):
        found = suggest(space, sampler, seen, seed=seed, directions=ONE, state=state)
        state = found.state
        values = keys_of(space.params, found.params)
        seen.append(Seen(found.params, (score(values),), system_attrs=found.system_attrs))
    return seen


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_suggests_the_same_for_the_same_trials_and_only_what_the_space_holds(sampler: str) -> None:
    space = GRID if sampler == "grid" else CONDITIONAL
    first, again = (search(space, sampler, 6, lambda values: 0.5) for _ in range(2))
    assert [one.params for one in first] == [one.params for one in again]
    assert len({repr(one.params) for one in first}) > 3
    for one in first:
        values = keys_of(space.params, one.params)
        active = space.active(values)
        assert {param.name for param in active} == set(one.params)
        assert all(param.holds(one.params[param.name]) for param in active)


def test_the_grid_is_tried_whole_and_each_point_once() -> None:
    assert len({repr(sorted(one.params.items())) for one in search(GRID, "grid", 6, lambda values: 0.5)}) == 6


def test_quasi_random_points_go_on_and_fill_the_plane_evenly() -> None:
    points = [one.params for one in search(PLANE, "qmc", 16, lambda values: 0.5)]
    cells = {(int(4 * float(point["x"])), int(4 * float(point["y"]))) for point in points}
    assert len(cells) >= 14  # 16 random points hit about 10 of 16 cells


@pytest.mark.parametrize(("sampler", "trials", "seeds"), [("tpe", 40, 3), ("gp", 16, 1), ("cmaes", 40, 3)])
def test_a_model_finds_the_top_of_a_hill_better_than_chance(sampler: str, trials: int, seeds: int) -> None:
    def hill(values: dict[str, Value]) -> float:
        return 1.0 - (float(values["x"]) - 0.2) ** 2 - (float(values["y"]) - 0.9) ** 2

    found = [search(PLANE, sampler, trials, hill, seed=seed)[-6:] for seed in range(seeds)]
    late = statistics.mean(one.values[0] for part in found for one in part if one.values)
    grid = [hill({"x": x / 20, "y": y / 20}) for x in range(21) for y in range(21)]
    assert late > statistics.mean(grid) + 0.15  # chance: 0.57


def test_the_first_trials_lie_around_the_likely_values() -> None:
    rate = "optim.lr (optim.name=adamw)"
    seen = [one for seed in range(6) for one in search(CONDITIONAL, "tpe", STARTUP // 2, lambda _: 0.5, seed=seed)]
    drawn = [float(one.params[rate]) for one in seen if rate in one.params]
    near = [0.0002 < value < 0.005 for value in drawn]
    assert sum(near) > 0.75 * len(near) > 3


GUESS = Space.model_validate({
    "params": [
        {"key": "label_smoothing", "low": 0.0, "high": 0.2, "likely": 0.05},
        {"key": "augment.mixup", "low": 0.0, "high": 0.8, "likely": 0.0},
    ]
})  # fmt: skip


def test_the_end_of_a_range_is_not_drawn_unless_it_is_itself_likely() -> None:
    seen = [one.params for seed in range(20) for one in search(GUESS, "tpe", STARTUP, lambda _: 0.5, seed=seed)]
    assert all(0.0 < float(params["label_smoothing"]) < 0.2 for params in seen)
    off = [params["augment.mixup"] == 0.0 for params in seen]
    assert 0.35 < sum(off) / len(off) < 0.65


def test_scientific_values_that_are_given_are_kept_by_every_sampler() -> None:
    for sampler in ("tpe", "random", "gp"):
        seen = search(CONDITIONAL, sampler, 9, lambda values: 0.5)
        found = suggest(CONDITIONAL, sampler, seen, seed=0, directions=ONE, fixed={"optim.name": "adamw"})
        assert found.params["optim.name"] == "adamw"
        assert "optim.lr (optim.name=adamw)" in found.params


def test_a_region_that_breaks_the_budget_is_left() -> None:
    seen: list[Seen] = []
    for _ in range(40):
        found = suggest(PLANE, "tpe", seen, seed=3, directions=ONE)
        over = float(found.params["x"]) - 0.3
        seen.append(Seen(found.params, None if over > 0 else (0.5,), {"size": over}))
    early, late = (sum(one.infeasible for one in part) for part in (seen[:15], seen[-15:]))
    assert late < early


def test_several_objectives_are_searched_too() -> None:
    both = directions_of(["accuracy", "size"])
    seen: list[Seen] = []
    for _ in range(14):
        found = suggest(PLANE, "tpe", seen, seed=0, directions=both)
        seen.append(Seen(found.params, (float(found.params["x"]), float(found.params["y"]))))
    assert len({repr(one.params) for one in seen}) == 14


def test_a_short_training_counts_as_what_it_would_have_reached() -> None:
    scores = [{0: 0.3, 1: 0.5, 2: 0.6}, {0: 0.4, 1: 0.5}, {0: 0.35, 1: 0.65}, {0: 0.2}, {}]
    full = expected_at_full(scores, 2)
    assert full == pytest.approx([0.6, 0.6, 0.75, 0.2 + 0.2 + 0.1, None])
    assert expected_at_full([{0: 0.5}], 2) == [0.5]


def test_the_best_so_far_is_expected_of_trials_that_came_as_far_as_the_rung_before_the_full_one() -> None:
    scores = [{0: 0.3, 1: 0.5, 2: 0.6}, {0: 0.4, 1: 0.45}, {0: 0.35, 1: 0.65}, {0: 0.9}, {}]
    assert leaders(scores, 2) == [2, 0, 1]
    assert leaders([{0: 0.5}, {}, {0: 0.7}], 0) == [2, 0]
    assert leaders([{1: 0.7}, {1: 0.7, 2: 0.7}], 2) == [1, 0]  # of equal ones the longest


def test_a_search_ends_where_a_gain_has_become_unlikely_and_not_before() -> None:
    def seen(count: int, noise: float) -> list[Seen]:
        points = [((i * 7 % count) / count, (i * 3 % count) / count) for i in range(count)]
        return [Seen({"x": x, "y": y}, (0.9 - noise * ((x - 0.5) ** 2 + (y - 0.5) ** 2),)) for x, y in points]

    assert not unlikely_to_improve(PLANE, seen(10, 0.001), 0.5)  # too few to say
    assert unlikely_to_improve(PLANE, seen(40, 0.01), 0.5)
    assert not unlikely_to_improve(PLANE, seen(24, 0.8), 0.0001)


TRAINING = load_space("training")
RANGES = ("optim.lr", "optim.weight_decay", "label_smoothing", "schedule.warmup_fraction")


def surface(seed: int) -> Callable[[Mapping[str, Value]], float]:
    """Return the true accuracy over the shipped space `training`: 0.9 at the best of every value, worse around it."""
    draw = np.random.default_rng(seed)
    top, curve = draw.uniform(0.1, 0.9, 4), np.array([0.3, 0.08, 0.03, 0.03])
    optimizers = dict(zip(("muon", "sgd", "adamw"), draw.permutation([0, -0.004, -0.008]), strict=True))
    batches = dict(zip((32, 64, 128, 256), draw.permutation([0, -0.002, -0.003, -0.008]), strict=True))

    def truth(params: Mapping[str, Value]) -> float:
        at = placed(TRAINING, axes_of(TRAINING), params)
        off = np.array([at[key] for key in RANGES]) - top
        return float(0.9 + optimizers[at["optim.name"]] + batches[at["batch_size"]] - (curve * off**2).sum())

    return truth


def test_a_search_of_the_shipped_space_ends_by_sixty_trials_and_not_while_going_on_gains_the_margin() -> None:
    """Trainings with 0.2 points of noise, a margin of 0.5 points; what is found is judged without the noise."""
    gained_after_twenty = []
    for seed in range(3):
        truth, noise = surface(seed), np.random.default_rng([seed, 1])
        seen: list[Seen] = []
        ended = None
        for count in range(1, 61):
            found = suggest(TRAINING, "tpe", seen, seed=seed, directions=ONE)
            seen.append(Seen(found.params, (truth(found.params) + 0.002 * noise.standard_normal(),)))
            if ended is None and count % 5 == 0 and unlikely_to_improve(TRAINING, seen, 0.005):
                ended = count

        def best(trials: int, seen: list[Seen] = seen, truth: Callable[..., float] = truth) -> float:
            """Return the true accuracy of what the search would hand out after so many trials."""
            return truth(max(seen[:trials], key=lambda one: one.values or (0.0,)).params)

        assert ended is not None, seed
        assert best(60) - best(ended) <= 0.005, (seed, ended)
        gained_after_twenty.append(best(60) - best(20))
    assert max(gained_after_twenty) > 0.005  # a rule that ends as soon as it may would not pass


def test_a_conditional_value_that_still_gains_keeps_the_search_going() -> None:
    """Both optimizers are alike, and all that is to gain lies in the upper half of one's rates, not yet tried."""

    def seen(gain: float) -> list[Seen]:
        found: list[Seen] = []
        for number in range(36):
            name, place = ("sgd", "adamw")[number % 2], (number * 7 % 36) / 36
            sgd = name == "sgd"
            lr = 0.01 * 10 ** (place if sgd else 2 * place - 2)  # sgd: the lower half of its range alone
            score = 0.7 + (gain * place if sgd else 0.0) + 0.0003 * (number % 3)
            values: dict[str, Value] = {
                "optim.name": name,
                f"optim.lr (optim.name={name})": lr,
                "epochs": 1 + number % 9,
            }
            found.append(Seen(values, (score,)))
        return found

    assert unlikely_to_improve(CONDITIONAL, seen(0.0), 0.02)
    assert not unlikely_to_improve(CONDITIONAL, seen(0.1), 0.02)  # without the rates half of the bound is 0.015


PLAIN = load_space("plain")
RATE = "optim.lr"


def place_of_rate(params: Mapping[str, Value]) -> float:
    """Return where the learning rate lies in the range of the optimizer that was drawn, 0 to 1."""
    (param,) = [one for one in PLAIN.params if one.key == RATE and one.name in params]
    return param.place(float(params[param.name]))


@pytest.mark.parametrize(("sampler", "draws"), [("gp", 4), ("cmaes", 24)])
def test_a_model_of_the_shipped_space_learns_the_rate_whose_range_depends_on_the_optimizer(
    sampler: str, draws: int
) -> None:
    seen: list[Seen] = []
    state: dict[str, object] = {}
    while len(seen) < 32 + draws:
        begun = len(seen) < (32 if sampler == "gp" else STARTUP)
        found = suggest(PLAIN, "random" if begun else sampler, seen, seed=5, directions=ONE, state=state)
        state = found.state or state
        score = 0.9 - (place_of_rate(found.params) - 0.15) ** 2
        seen.append(Seen(found.params, (score,), system_attrs=found.system_attrs))
    off = [abs(place_of_rate(one.params) - 0.15) for one in seen[-draws:]]
    assert statistics.median(off) < 0.15  # by chance 0.35


def test_quasi_random_points_fill_a_conditional_range_evenly() -> None:
    places = [place_of_rate(one.params) for one in search(PLAIN, "qmc", 17, lambda values: 0.5)][1:]
    eighths = [int(min(place, 0.999) * 8) for place in places]
    assert [eighths.count(one) for one in range(8)] == [2] * 8


def test_a_place_on_an_axis_and_the_value_there_are_inverse_also_where_choices_and_ranges_share_a_key() -> None:
    mixed = Space.model_validate({
        "params": [
            {"key": "optim.name", "choices": ["sgd", "muon", "adamw"]},
            {"key": "optim.lr", "choices": [0.1, 0.2, 0.4], "when": {"optim.name": ["sgd"]}},
            {"key": "optim.lr", "low": 0.001, "high": 0.1, "log": True, "when": {"optim.name": ["muon"]}},
            {"key": "optim.lr", "choices": [0.1, 0.3], "when": {"optim.name": ["adamw"]}},
            {"key": "epochs", "low": 1, "high": 9, "integer": True},
        ]
    })  # fmt: skip
    axes = axes_of(mixed)
    for seed in range(40):
        params = suggest(mixed, "random", [], seed=seed, directions=ONE).params
        point = placed(mixed, axes, params)
        assert set(point) == set(axes) == {"optim.name", "optim.lr", "epochs"}
        for param in mixed.params:
            if param.name in params:
                assert value_at(axes[param.key], param, point[param.key]) == pytest.approx(params[param.name])


def test_an_unknown_sampler_and_a_grid_over_a_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="there is no sampler 'bayes'"):
        suggest(PLANE, "bayes", [], seed=0, directions=ONE)
    with pytest.raises(RecipeError, match="x, y has a range"):
        suggest(PLANE, "grid", [], seed=0, directions=ONE)
