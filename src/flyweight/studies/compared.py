"""A comparison of networks on the user's own data, as a study."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
# What pretraining has seen of the images of a source, as weights name what they were trained on: Tiny ImageNet is cut
# from ImageNet.
SEEN_BY = dict.fromkeys(("imagenet", "tiny-imagenet"), ("ImageNet", "imagenet", "in1k", "in12k", "in21k", "in22k"))
RATES = (1.0, 0.3, 3.0, 0.1, 10.0, 0.55, 1.8, 0.17, 5.5)  # times the recipe's, in the order in which they are tried


def comparison(
    data: Sequence[str],
    models: Sequence[str],
    recipe: Recipe,
    *,
    seeds: int,
    more: Sequence[Recipe] = (),
    tries: int = 1,
    tune_epochs: int = 3,
    sizes: Sequence[Subset] = (),
    part: str = "test",
    pretrained: Sequence[str] = (),
    quarantine: Path | None = None,
) -> Study:
    """Return the study of every network on every data set, all by one recipe, or each by each of several.

    Args:
        more: Further recipes; an arm is then a network with one of them.
        sizes: Subsets of each data set, nested; several are data sets of their own, and the report says whether the
            networks keep their order from one to the next. (): the whole.
        tries: Learning rates that each network tries on validation before it is trained; 1: that of the recipe.
        pretrained: Names of weights; each adds an arm of its network that begins with them.
        quarantine: File that names images to leave out.

    Raises:
        RecipeError: Fewer than two arms, a part that is neither test nor val, more seeds than folds, a recipe with
            stages to tune, or one that sets up a network; recipes of one name, or with different data parts.
        ModelError: There is no such network, or no such weights.
    """
    models = list(dict.fromkeys(models))
    for name in models:
        find(name)
    begun = {name: load_weights(name).architecture.name for name in pretrained}
    recipes = (recipe, *more)
    if (len(models) + len(begun)) * len(recipes) < 2:
        raise RecipeError(f"a comparison needs two networks, found {models}", do="add --models NAME")
    _check_recipes(recipes)
    folds = round(1 / recipe.data.val_fraction)
    if part == "test" and seeds > folds:
        raise RecipeError(
            f"{seeds} seeds, but data.val_fraction={recipe.data.val_fraction} makes {folds} folds",
            do=f"choose at most {folds} seeds",
        )
    if part not in ("test", "val"):
        raise RecipeError(f"--part {part!r}", do="choose test or val")
    if tries > 1 and any(one.stages for one in recipes):
        raise RecipeError("--tune with a recipe that has stages", do="leave out --tune, or use a recipe without stages")
    datasets, subsets = data_sets(data, sizes or [Subset()], quarantine)
    arms = {
        name: arm
        for one in recipes
        for name, arm in _arms(models, begun, one, _search(one, tries, tune_epochs), several=bool(more)).items()
    }
    by = " and ".join(repr(one.name) for one in recipes)
    return Study(
        name="compare",
        title=f"{len(models)} networks on {', '.join(datasets)}",
        part="val" if part == "val" else "test",
        reference=next(iter(arms)),
        compare=True,
        about=f"Every network is trained by the recipe{'s' * bool(more)} {by}, {seeds} times, and timed as a file.",
        scales={"own": Scale(seeds=seeds, subsets=subsets)},
        datasets=datasets,
        base={} if more else base_of(recipe, without=("model",)),
        arms=arms,
    )


def _check_recipes(recipes: Sequence[Recipe]) -> None:
    for one in recipes:
        if one.model.args or one.model.pretrained:
            raise RecipeError(
                f"the recipe {one.name!r} sets model.args or model.pretrained, and the networks of a comparison differ",
                do="leave them out; --pretrained NAME adds an arm that begins with these weights",
            )
    if len({one.name for one in recipes}) < len(recipes):
        raise RecipeError(f"two recipes are called {recipes[0].name!r}", do="give each its own name, the field `name`")
    if any(one.data != recipes[0].data for one in recipes):
        raise RecipeError(
            f"the recipes {', '.join(one.name for one in recipes)} differ in their data part: their images are not the "
            "same",
            do="make it the same, e.g. --set data.image_size=32 for all",
        )


def _search(recipe: Recipe, tries: int, epochs: int) -> Tune | None:
    rates: list[dict[str, Any]] = [{"optim": {"lr": recipe.optim.lr * factor}} for factor in RATES[1:tries]]
    return Tune(tries=({}, *rates), epochs=epochs) if tries > 1 else None


def _arms(
    models: Sequence[str], begun: Mapping[str, str], recipe: Recipe, search: Tune | None, *, several: bool
) -> dict[str, Arm]:
    """Return an arm for each network and for each of the weights, by one recipe; all of it where there are several."""
    own = base_of(recipe, without=("model",)) if several else {}
    init = {} if recipe.model.init == "default" else {"init": recipe.model.init}
    parts = {name: (name, name, {"name": name, **init}) for name in models}
    parts |= {
        _short(name): (network, f"{network}, pretrained", {"name": network, "pretrained": name})
        for name, network in begun.items()
    }
    return {
        f"{name}.{_short(recipe.name)}" if several else name: Arm(
            title=f"{title}, {recipe.name}" if several else title,
            group=network,
            tune=search,
            recipe={**own, "model": part},
        )
        for name, (network, title, part) in parts.items()
    }


def base_of(recipe: Recipe, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return what all arms of a study share: the recipe less its name, with nothing left to a probe."""
    settled = {
        "threads": 1,
        "compile": False,
        "precision": "fp32" if recipe.precision == "auto" else recipe.precision,
        "channels_last": True if recipe.channels_last == "auto" else recipe.channels_last,
    }
    left_out = {"name", "seed", "resolved", "expected", *without}
    return recipe.model_copy(update=settled).model_dump(mode="json", exclude_none=True, exclude=left_out)


def data_sets(
    data: Sequence[str], sizes: Sequence[Subset], quarantine: Path | None = None
) -> tuple[dict[str, StudyData], dict[str, Subset]]:
    """Return a data set of a study for every size of every source, and the subsets, by name: `NAME`, or `NAME-SIZE`."""
    found, subsets = {}, {}
    for name, source in _names(data).items():
        for small in sizes:
            label = f"{name}-{small.per_class or f'{100 * (small.fraction or 1):g}pc'}" if len(sizes) > 1 else name
            found[label] = StudyData(
                title=f"{name} ({small.words})" if small.words else name,
                seen_by=SEEN_BY.get(source.partition(":")[0], ()),
                data={},
                source=source,
                quarantine=None if quarantine is None else str(quarantine),
            )
            if small.words:
                subsets[label] = small
    return found, subsets


def _names(data: Sequence[str]) -> dict[str, str]:
    """Return a short name for each source, different from each other."""
    found: dict[str, str] = {}
    for source in data:
        short = _short(source.partition(":")[0].rstrip("/").rpartition("/")[2]).strip("-.")
        name, number = short or "data", 2
        while name in found:
            name, number = f"{short}-{number}", number + 1
        found[name] = source
    return found


def _short(name: str) -> str:
    """Return a name that may be a folder's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
