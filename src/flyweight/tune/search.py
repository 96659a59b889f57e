"""What a search is: everything that a worker, here or on another machine, must know to take part in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.data.audit import leave_out
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.errors import BudgetError, RecipeError
from flyweight.measure.accuracy import METRICS
from flyweight.measure.budget import LIMITS, MEASURED, Budget
from flyweight.runtime.code import code_facts
from flyweight.runtime.environment import CPU, is_cpu
from flyweight.train.prepare import native_shape, split_for
from flyweight.train.recipe import Recipe
from flyweight.tune.brackets import Shape
from flyweight.tune.fidelity import Rung
from flyweight.tune.space import Space, Value
from flyweight.tune.store import Direction

SETTLED = {"threads": 1, "compile": False, "precision": "fp32", "channels_last": True}


@dataclass(frozen=True)
class Source:
    """Where the images are, as `load_data` takes it."""

    data: str
    group: str | None = None
    quarantine: str | None = None

    def load(self) -> Dataset:
        """Return the data set. Raises DataError as `load_data` does."""
        dataset = load_data(self.data, group=self.group)
        return leave_out(dataset, None if self.quarantine is None else Path(self.quarantine))


@dataclass(frozen=True)
class Search:
    """A search over recipes.

    Attributes:
        recipe: What is changed; the length of the full training is its own.
        ladder: Rungs, shortest first; the last is the full training.
        shapes: Of the brackets, in turn.
        metric: Of the validation images, a name in `measure.accuracy.METRICS`: the first objective.
        costs: Further objectives, names of `measure.budget.LIMITS`: known before training.
        budget: Limits; what breaks one is not trained.
        queue: Values by key that are tried first: of recipes, and of earlier searches.
        trials: Most trials.
        margin: Stop when an improvement of the metric by so much has become unlikely; None: do not ask.
        threads: Of the runtime that times the files.
        device: What trains, as torch names it.
        storage: URL of the database.
        out: Folder of the trainings on this machine.
    """

    source: Source
    recipe: Recipe
    space: Space
    ladder: tuple[Rung, ...]
    shapes: tuple[Shape, ...]
    sampler: str
    metric: str
    costs: tuple[str, ...]
    budget: Budget
    queue: tuple[Mapping[str, Value], ...]
    trials: int
    margin: float | None
    seed: int
    threads: int
    storage: str
    name: str
    out: Path
    device: str = CPU

    @property
    def full(self) -> int:
        """The number of the full rung."""
        return len(self.ladder) - 1

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of the objectives: the metric is made larger, costs smaller."""
        smaller: Direction = "minimize"
        return ("maximize", *(smaller for _ in self.costs))

    @property
    def weighs(self) -> bool:
        """True where anything is asked of the files."""
        return bool(self.budget.limits or self.costs)

    @property
    def times(self) -> bool:
        """True where a latency is asked for."""
        asked = {limit.metric for limit in self.budget.limits} | set(self.costs)
        return bool(asked & {metric for metric in MEASURED if metric.startswith("latency")})

    @property
    def weighs_memory(self) -> bool:
        """True where the memory of a fresh process is asked for."""
        return self.budget.limits_metric("memory") or any(cost.startswith("memory") for cost in self.costs)

    def trial_recipe(self, values: Mapping[str, Value]) -> Recipe:
        """Return the recipe of a trial at full length. Raises RecipeError where the values contradict each other."""
        made = self.space.recipe(self.recipe, values)
        settled = {key: value for key, value in SETTLED.items() if getattr(made, key) == "auto"}
        return made.model_copy(update={**settled, "name": self.name, "seed": self.seed, "expected": {}})

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """Return what makes it this search, to be compared when it goes on; how long it may take does not."""
        left_out = {"name", "description", "expected", "resolved"}
        return {
            **search_code(),
            "data": dataset.fingerprint(),
            "recipe": _short(self.recipe.model_dump(mode="json", exclude=left_out)),
            "space": _short(self.space.model_dump(mode="json", exclude={"name", "about", "source", "families"})),
            "rungs": [[rung.epochs, round(rung.share, 6), rung.image_size] for rung in self.ladder],
            "brackets": json.loads(json.dumps(self.shapes)),
            "sampler": self.sampler,
            "objectives": [self.metric, *self.costs],
            "budget": self.budget.text,
            "queue": _short([dict(values) for values in self.queue]),
            "seed": self.seed,
            **({} if is_cpu(self.device) else {"device": self.device}),
        }


def search_code() -> dict[str, str]:
    """Return the facts of the code that decides a search: what trains, what chooses, and what scores."""
    return code_facts(("tune", "measure.accuracy"), ("optuna",))


def _short(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_objectives(names: Sequence[str], budget: Budget) -> tuple[str, tuple[str, ...]]:
    """Return (metric, costs) of the objectives, the metric first.

    Raises:
        RecipeError: An unknown name, no metric or two, a cost that is named twice.
    """
    metrics = [name for name in names if name in METRICS] or [budget.maximize]
    costs = [name for name in names if name in LIMITS]
    unknown = [name for name in names if name not in METRICS and name not in LIMITS]
    if unknown:
        raise RecipeError(
            f"there is no objective {unknown[0]!r}",
            do=f"choose one of {', '.join(METRICS)}, and costs of {', '.join(LIMITS)}",
            more="docs/tuning.md#objectives",
        )
    if len(metrics) > 1 or len(set(costs)) < len(costs):
        raise RecipeError(
            f"--objective {','.join(names)} names an objective twice, or two that training decides",
            do="name one metric of the answers, and each cost once",
            more="docs/tuning.md#objectives",
        )
    return metrics[0], tuple(costs)


def train_images(dataset: Dataset, recipe: Recipe) -> int:
    """Return how many images the full training trains on."""
    return len(split_for(dataset, recipe.data).train)


def image_size_of(dataset: Dataset, recipe: Recipe) -> int:
    """Return the side in px that the full training has."""
    return recipe.data.image_size or native_shape(dataset)[0]


def refuse_impossible(budget: Budget) -> None:
    """Raise BudgetError for limits that contradict each other, whatever the network."""
    limits = {limit.metric: limit for limit in budget.limits}
    for larger, smaller in (
        ("latency_p90", "latency_p50"),
        ("latency_p99", "latency_p90"),
        ("latency_p99", "latency_p50"),
        ("memory", "memory_increment"),
    ):
        high, low = limits.get(larger), limits.get(smaller)
        if high and low and high.value < low.value:
            raise BudgetError(
                f"{high.text} is tighter than {low.text}: with it the other says nothing",
                do=f"leave one out; {larger} is never below {smaller}",
            )
