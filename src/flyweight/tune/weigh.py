"""What a recipe's network costs, known before it is trained: exported untrained, counted and timed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from flyweight.data.dataset import Dataset
from flyweight.export.onnx import export_untrained
from flyweight.files import write_json
from flyweight.measure.budget import Budget
from flyweight.measure.weigh import weigh_files
from flyweight.models.architecture import Architecture
from flyweight.train.prepare import native_shape
from flyweight.train.recipe import Recipe
from flyweight.tune.search import Search


def weigh_recipe(search: Search, dataset: Dataset, recipe: Recipe) -> dict[str, float | None]:
    """Return the costs by metric of a budget; each network is weighed once and remembered in the search's folder.

    Raises:
        ModelError, ExportError: The network cannot be built or exported.
        OutputError: The folder cannot be written.
    """
    architecture = architecture_of(recipe, dataset)
    name = hashlib.sha256(json.dumps(architecture.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    folder = search.out / "costs"
    known = folder / f"{name}.json"
    if known.is_file():
        found: dict[str, float | None] = json.loads(known.read_text("utf-8"))
        return found
    file = folder / f"{name}.onnx"
    if not file.is_file():
        export_untrained(architecture, file)
    (cost,) = weigh_files([file], threads=search.threads, timed=search.times, memory=search.weighs_memory)
    write_json(known, cost.values)
    return cost.values


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
