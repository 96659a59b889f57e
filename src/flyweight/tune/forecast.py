"""What a search will cost, in core-minutes, said before anything is trained; kept, to stand beside what it took."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from flyweight.data.dataset import Dataset
from flyweight.errors import FlyweightError
from flyweight.files import write_json
from flyweight.runtime.environment import is_cpu
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
        seconds: Of one core, of all of them, by what they go in; the mean over the networks that were timed.
        networks: Seconds of all of them if each trial had this network, by its name.
        unknown: Why others could not be timed.
        share: Of a core that the timed steps got, beside what else ran on the machine.
        device: What trains: seconds are of a core, or by the clock of a GPU.
    """

    trainings: tuple[int, ...]
    images: int
    seconds: dict[str, float]
    networks: dict[str, float]
    unknown: dict[str, str]
    share: float
    device: str

    @property
    def total(self) -> float:
        """Seconds of all of them."""
        return sum(self.seconds.values())


def foresee(search: Search, dataset: Dataset, say: Callable[[str], None] | None = None) -> Forecast:
    """Return what the search will take.

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
    return _forecast(search, known).total if known and known["each"] else None


def predicted_trainings(search: Search) -> tuple[dict[str, list[dict[str, float]]], float]:
    """Return the seconds of one training on each rung, by network, and those that timing them took; {} without."""
    known = _read(search) or {"each": {}}
    return known["each"], known.get("seconds", 0.0)


def network_of(search: Search, values: Mapping[str, Value]) -> str:
    """Return the name of the network of a trial, as predictions have it."""
    return str(values.get(NETWORK, search.recipe.model.name))


def _typical(search: Search, network: Value | None) -> Recipe:
    """Return the recipe at the likely values, with a network; None: the recipe's own."""
    return search.trial_recipe(_likely(search, {} if network is None else {NETWORK: network}))


def _networks(search: Search) -> dict[str, Value | None]:
    """Return the networks that the space names, by name; the recipe's own where it names none."""
    drawn = [param for param in search.space.params if param.key == NETWORK and param.choices]
    return {str(name): name for param in drawn for name in param.choices} or {search.recipe.model.name: None}


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
    before, start = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)
    try:
        pacer, each, unknown = Pacer(search.device), {}, {}
        for name, network in _networks(search).items():
            try:
                rungs = [rung.recipe(_typical(search, network)) for rung in search.ladder]
                each[name] = [pacer.seconds([one], prepare(dataset, one)) for one in rungs]
            except FlyweightError as error:
                unknown[name] = error.what
    finally:
        torch.set_num_threads(before)
    return {
        "of": _key(search),
        "each": each,
        "unknown": unknown,
        "share": pacer.clock.share,
        "seconds": time.monotonic() - start,
    }


def _read(search: Search) -> dict[str, Any] | None:
    """Return what was timed of this search; None where nothing was, or what was asked for is another by now."""
    file = search.out / PREDICTED
    known: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return known if known.get("of") == _key(search) else None


def _key(search: Search) -> str:
    """Return the hash of all that the seconds of its trainings depend on."""
    parts = [search.source, search.recipe.model_dump_json(), search.space.model_dump_json(), search.ladder]
    parts += [] if is_cpu(search.device) else [search.device]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _forecast(search: Search, known: dict[str, Any]) -> Forecast:
    counted = count_trainings(search.shapes, search.trials)
    trainings = tuple(counted.get(rung, 0) for rung in range(len(search.ladder)))
    by_network = {
        name: total_seconds(
            {key: count * one[key] for key in SECONDS} for count, one in zip(trainings, each, strict=True)
        )
        for name, each in known["each"].items()
    }
    return Forecast(
        trainings=trainings,
        images=sum(count * rung.images for count, rung in zip(trainings, search.ladder, strict=True)),
        seconds={key: sum(one[key] for one in by_network.values()) / max(1, len(by_network)) for key in SECONDS},
        networks={name: sum(one[key] for key in SECONDS) for name, one in by_network.items()},
        unknown=known["unknown"],
        share=known["share"],
        device=search.device,
    )


def in_words(forecast: Forecast, jobs: int) -> list[str]:
    """Return a forecast as lines to print."""
    unknown = [f"not predicted: {name}: {why}" for name, why in forecast.unknown.items()]
    if not forecast.networks:
        return unknown
    split = ", ".join(f"{seconds / 60:.2f} {key}" for key, seconds in forecast.seconds.items())
    on_cores = is_cpu(forecast.device)
    lines = [
        f"predicted: {forecast.total / 60:.1f} {'core' if on_cores else 'GPU'}-minutes for {sum(forecast.trainings)} "
        f"trainings of {forecast.images:,} image passes: {split}",
        f"  {forecast.total / 60 / jobs:.1f} minutes with {jobs} at a time, if each has a core of its own; at the "
        f"likely values, with {100 * forecast.share:.0f} % of a core beside what else ran while steps were timed"
        if on_cores
        else f"  as long on {forecast.device} with several at a time, if each keeps it busy; at the likely values",
    ]
    if len(forecast.networks) > 1:
        low, high = (pick(forecast.networks, key=forecast.networks.__getitem__) for pick in (min, max))
        lines.append(
            f"  from {forecast.networks[low] / 60:.1f} (all {low}) to {forecast.networks[high] / 60:.1f} (all {high})"
        )
    return lines + unknown
