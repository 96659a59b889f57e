"""What a search will cost, in core-minutes, said before anything is trained; kept, to stand beside what it took."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from flyweight.data.dataset import Dataset
from flyweight.errors import FlyweightError
from flyweight.files import write_json
from flyweight.train.pace import SECONDS, Pacer, total_seconds
from flyweight.train.prepare import prepare
from flyweight.train.recipe import Recipe
from flyweight.tune.brackets import count_trainings
from flyweight.tune.search import Search
from flyweight.tune.space import Param, Value

PREDICTED = "predicted.json"
NETWORK = "model.name"


@dataclass(frozen=True)
class Forecast:
    """What a search takes until all its trials are at their end.

    Attributes:
        trainings: On each rung, shortest first.
        images: Image passes of all of them.
        seconds: Of one core, of all of them, by what they go in; with the mean of the networks that were timed.
        networks: Seconds of all of them if each trial had this network, by its name.
        unknown: Why others could not be timed.
        share: Of a core that the timed steps got, beside what else ran on the machine.
    """

    trainings: tuple[int, ...]
    images: int
    seconds: dict[str, float]
    networks: dict[str, float]
    unknown: dict[str, str]
    share: float

    @property
    def total(self) -> float:
        """Seconds of one core."""
        return sum(self.seconds.values())


def foresee(search: Search, dataset: Dataset, say: Callable[[str], None] | None = None) -> Forecast | None:
    """Return what the search will take; None where no network of the space could be timed.

    A few steps of each network that the space names are timed, at the likely values, and written down; a search that
    goes on takes what is written.

    Args:
        say: Told, before anything is timed, that it will be.

    Raises:
        OutputError: The folder of the search cannot be written.
    """
    known = _read(search)
    if known is None:
        if say:
            say("timing a few steps of each network of the space, to say what the search will cost")
        known = _timed(search, dataset)
        write_json(search.out / PREDICTED, known)
    return _forecast(search, known)


def predicted_seconds(search: Search) -> float | None:
    """Return what was foreseen for all trials, in seconds of one core; None where nothing was."""
    known = _read(search)
    forecast = None if known is None else _forecast(search, known)
    return None if forecast is None else forecast.total


def typical(search: Search) -> dict[str, Recipe]:
    """Return the recipe at the likely values, one for each network that the space names. Raises RecipeError."""
    networks = [param for param in search.space.params if param.key == NETWORK and param.choices]
    names = networks[0].choices if networks else (search.recipe.model.name,)
    return {str(name): search.trial_recipe(_likely(search, {NETWORK: name} if networks else {})) for name in names}


def _likely(search: Search, given: dict[str, Value]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for param in search.space.params:
        if param.active(values):
            values[param.key] = given.get(param.key, _value(param))
    return values


def _value(param: Param) -> Value:
    if param.likely is not None:
        return param.likely
    return param.choices[0] if param.choices else param.at(0.5)


def _timed(search: Search, dataset: Dataset) -> dict[str, Any]:
    """Return the seconds of one training on each rung, by network, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pacer, each, unknown = Pacer(), {}, {}
        for name, recipe in typical(search).items():
            try:
                rungs = [rung.recipe(recipe) for rung in search.ladder]
                each[name] = [pacer.seconds([one], prepare(dataset, one)) for one in rungs]
            except FlyweightError as error:
                unknown[name] = error.what
    finally:
        torch.set_num_threads(before)
    return {"each": each, "unknown": unknown, "share": pacer.clock.share}


def _read(search: Search) -> dict[str, Any] | None:
    file = search.out / PREDICTED
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def _forecast(search: Search, known: dict[str, Any]) -> Forecast | None:
    counted = count_trainings(search.shapes, search.trials)
    trainings = tuple(counted.get(rung, 0) for rung in range(len(search.ladder)))
    if not known["each"]:
        return None
    by_network = {
        name: total_seconds(
            {key: count * one[key] for key in SECONDS} for count, one in zip(trainings, each, strict=True)
        )
        for name, each in known["each"].items()
    }
    return Forecast(
        trainings=trainings,
        images=sum(count * rung.images for count, rung in zip(trainings, search.ladder, strict=True)),
        seconds={key: sum(one[key] for one in by_network.values()) / len(by_network) for key in SECONDS},
        networks={name: sum(one[key] for key in SECONDS) for name, one in by_network.items()},
        unknown=known["unknown"],
        share=known["share"],
    )


def to_json(forecast: Forecast | None) -> dict[str, Any] | None:
    """Return a forecast as plain values."""
    return None if forecast is None else dataclasses.asdict(forecast)


def in_words(forecast: Forecast | None, jobs: int) -> list[str]:
    """Return a forecast as lines to print."""
    if forecast is None:
        return ["not predicted: no network of the space could be timed"]
    split = ", ".join(f"{seconds / 60:.2f} {key}" for key, seconds in forecast.seconds.items())
    lines = [
        f"predicted: {forecast.total / 60:.1f} core-minutes for {sum(forecast.trainings)} trainings of "
        f"{forecast.images:,} image passes: {split}",
        f"  {forecast.total / 60 / jobs:.1f} minutes with {jobs} at a time, if each has a core of its own; at the "
        f"likely values, with {100 * forecast.share:.0f} % of a core beside what else ran while steps were timed",
    ]
    if len(forecast.networks) > 1:
        low, high = (pick(forecast.networks, key=forecast.networks.__getitem__) for pick in (min, max))
        lines.append(
            f"  from {forecast.networks[low] / 60:.1f} (all {low}) to {forecast.networks[high] / 60:.1f} (all {high})"
        )
    return lines + [f"  not timed: {name}: {why}" for name, why in forecast.unknown.items()]
