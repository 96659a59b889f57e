"""What a recipe's network costs, known before it is trained: exported untrained, counted and timed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.data.dataset import Dataset
from flyweight.errors import ModelError
from flyweight.export.onnx import export_untrained
from flyweight.files import write_json
from flyweight.measure.budget import Budget
from flyweight.measure.weigh import weigh_files
from flyweight.models.architecture import Architecture
from flyweight.runtime.cores import room_for
from flyweight.train.prepare import native_shape
from flyweight.train.recipe import Recipe
from flyweight.tune.search import Search


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        values: By metric of a budget: latencies in ms, sizes in bytes, counts.
        disturbed: True where other programs had the processor while it was timed: the latency is not the network's.
    """

    values: dict[str, float | None]
    disturbed: bool


def weigh_recipe(search: Search, dataset: Dataset, recipe: Recipe) -> Costs:
    """Return the costs of a recipe's network; each is weighed once and remembered in the search's folder.

    Raises:
        ModelError, ExportError: The network cannot be built or exported, or has no value for an objective.
        BudgetError: It is to be timed with more threads than there are cores.
        OutputError: The folder cannot be written.
    """
    architecture = architecture_of(recipe, dataset)
    name = hashlib.sha256(json.dumps(architecture.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    folder = search.out / "costs"
    known = folder / f"{name}.json"
    found = json.loads(known.read_text("utf-8")) if known.is_file() else {}
    if found.get("threads") != search.threads:  # not weighed, or with other threads, or by a version that kept no more
        found = _weighed(search, architecture, folder / f"{name}.onnx")
        write_json(known, found)
    unknown = [cost for cost in search.costs if found["values"].get(cost) is None]
    if unknown:
        raise ModelError(
            f"{unknown[0]} of {architecture.name} is not known: {found['why'] or 'it is not measured here'}",
            do="choose another cost for --objective, or smaller networks",
        )
    return Costs(found["values"], found["disturbed"])


def _weighed(search: Search, architecture: Architecture, file: Path) -> dict[str, Any]:
    if not file.is_file():
        export_untrained(architecture, file)
    with room_for(search.threads if search.times else 1):
        (cost,) = weigh_files([file], threads=search.threads, timed=search.times, memory=search.weighs_memory)
    reasons = [one["reason"] for one in cost.latency.values() if isinstance(one, dict) and one.get("reason")]
    return {
        "threads": search.threads,
        "values": cost.values,
        "cpu_share": cost.latency.get("cpu_share"),
        "disturbed": cost.disturbed,
        "why": "; ".join(dict.fromkeys(reasons)),
    }


def architecture_of(recipe: Recipe, dataset: Dataset) -> Architecture:
    """Return the network of a recipe for these images. Raises ModelError where it cannot be."""
    side, channels = native_shape(dataset)
    return Architecture(
        name=recipe.model.name,
        num_classes=len(dataset.classes),
        in_chans=recipe.data.channels or channels,
        image_size=recipe.data.image_size or side,
        args=dict(recipe.model.args),
    )


def excess(budget: Budget, costs: Mapping[str, float | None]) -> dict[str, float]:
    """Return by how much each limit is broken, as a share of it; 0 or below where it is kept."""
    checks = {check.metric: check for check in budget.check(costs) if check.value is not None}
    over = {metric: (check.value or 0.0) / check.limit - 1.0 for metric, check in checks.items()}
    # A limit that is met to the byte: `<` breaks it, `<=` keeps it.
    return {metric: value or (1e-9 if checks[metric].status == "violated" else 0.0) for metric, value in over.items()}
