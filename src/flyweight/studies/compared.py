"""A comparison of networks on the user's own data, as a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flyweight.errors import RecipeError
from flyweight.models.weights import load_weights
from flyweight.models.zoo import find
from flyweight.studies.study import Arm, Scale, Study, StudyData, Subset, Tune
from flyweight.train.recipe import Recipe

# The five of arXiv:2505.03303 and two of ours.
DEFAULT_MODELS = (
    "mobilenetv3_small_100",
    "resnet18",
    "squeezenet1_1",
    "efficientnetv2_s",
    "shufflenet_v2_x1_0",
    "tiny_resnet8_16",
    "tiny_sep_64",
)
RATES = (1.0, 0.3, 3.0, 0.1, 10.0, 0.55, 1.8, 0.17, 5.5)  # times the recipe's, in the order in which they are tried


def comparison(
    data: Sequence[str],
    models: Sequence[str],
    recipe: Recipe,
    *,
    seeds: int,
    tries: int = 1,
    tune_epochs: int = 3,
    classes: int | None = None,
    per_class: int | None = None,
    part: str = "test",
    pretrained: Sequence[str] = (),
    quarantine: Path | None = None,
) -> Study:
    """Return the study of every network on every data set, all by one recipe.

    Args:
        tries: Learning rates that each network tries on validation before it is trained; 1: that of the recipe.
        pretrained: Names of weights; each adds an arm of its network that begins with them.
        quarantine: File that names images to leave out.

    Raises:
        RecipeError: Fewer than two networks, a part that is neither test nor val, more seeds than folds, a recipe with
            stages to tune, or one that names a network.
        ModelError: There is no such network, or no such weights.
    """
    models = list(dict.fromkeys(models))
    for name in models:
        find(name)
    begun = {name: load_weights(name).architecture.name for name in pretrained}
    if len(models) + len(begun) < 2:
        raise RecipeError(f"a comparison needs two networks, found {models}", do="add --models NAME")
    if recipe.model.args or recipe.model.pretrained:
        raise RecipeError(
            "the recipe sets model.args or model.pretrained, and the networks of a comparison differ",
            do="leave them out; --pretrained NAME adds an arm that begins with these weights",
        )
    folds = round(1 / recipe.data.val_fraction)
    if part == "test" and seeds > folds:
        raise RecipeError(
            f"{seeds} seeds, but data.val_fraction={recipe.data.val_fraction} makes {folds} folds",
            do=f"choose at most {folds} seeds",
        )
    if part not in ("test", "val"):
        raise RecipeError(f"--part {part!r}", do="choose test or val")
    if tries > 1 and recipe.stages:
        raise RecipeError("--tune with a recipe that has stages", do="leave out --tune, or use a recipe without stages")
    names = _names(data)
    small = Subset(classes=classes, per_class=per_class)
    rates: list[dict[str, Any]] = [{"optim": {"lr": recipe.optim.lr * factor}} for factor in RATES[1:tries]]
    search = Tune(tries=({}, *rates), epochs=tune_epochs) if tries > 1 else None
    settled = {
        "threads": 1,
        "compile": False,
        "precision": "fp32" if recipe.precision == "auto" else recipe.precision,
        "channels_last": True if recipe.channels_last == "auto" else recipe.channels_last,
    }
    left_out = {"name", "seed", "model", "resolved", "expected"}
    base = recipe.model_copy(update=settled).model_dump(mode="json", exclude_none=True, exclude=left_out)
    return Study(
        name="compare",
        title=f"{len(models)} networks on {', '.join(names)}",
        part="val" if part == "val" else "test",
        reference=models[0],
        compare=True,
        about=f"Every network is trained by the recipe {recipe.name!r}, {seeds} times, and timed as a file.",
        scales={"own": Scale(seeds=seeds, subsets=dict.fromkeys(names, small) if classes or per_class else {})},
        datasets={
            name: StudyData(
                title=_title(name, small),
                data={},
                source=source,
                quarantine=None if quarantine is None else str(quarantine),
            )
            for name, source in names.items()
        },
        base=base,
        arms={
            **{name: Arm(title=name, group=name, tune=search, recipe={"model": {"name": name}}) for name in models},
            **{
                re.sub(r"[^A-Za-z0-9_.-]+", "-", name): Arm(
                    title=f"{network}, pretrained",
                    group=network,
                    tune=search,
                    recipe={"model": {"name": network, "pretrained": name}},
                )
                for name, network in begun.items()
            },
        },
    )


def _names(data: Sequence[str]) -> dict[str, str]:
    """Return a short name for each source, different from each other."""
    found: dict[str, str] = {}
    for source in data:
        short = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.partition(":")[0].rstrip("/").rpartition("/")[2]).strip("-.")
        name, number = short or "data", 2
        while name in found:
            name, number = f"{short}-{number}", number + 1
        found[name] = source
    return found


def _title(name: str, small: Subset) -> str:
    parts = [f"first {small.classes} classes" if small.classes else ""]
    parts.append(f"{small.per_class} images a class" if small.per_class else "")
    kept = ", ".join(part for part in parts if part)
    return f"{name} ({kept})" if kept else name
