"""Which parts of a recipe earn their place: arms with and without each, as a study."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from flyweight.errors import RecipeError
from flyweight.studies.compared import base_of, data_sets
from flyweight.studies.study import Arm, Question, Scale, Study, Subset, Tune, merged
from flyweight.train.recipe import Recipe

Design = Literal["one-at-a-time", "cumulative", "leave-one-out", "factorial"]
BASE, ALL = "base", "all"
MOST_FACTORS = 5  # of a full factorial design: 32 arms
DOCS = "docs/ablation.md"


@dataclass(frozen=True)
class Factor:
    """A part of the recipe that is on or off: its name, and the settings that turn it on."""

    name: str
    settings: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name as part of a folder's."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", self.name).strip("-.")

    @property
    def text(self) -> str:
        """Its name and settings, for people."""
        return f"{self.name} ({', '.join(self.settings)})"

    @property
    def change(self) -> dict[str, Any]:
        """What it changes, as the recipe nests it."""
        found: dict[str, Any] = {}
        for setting in self.settings:
            key, _, value = setting.partition("=")
            *parents, last = key.split(".")
            target = found
            for parent in parents:
                target = target.setdefault(parent, {})
            target[last] = yaml.safe_load(value)
        return found


def parse_factor(text: str, recipe: Recipe) -> Factor:
    """Read `NAME: key=value; key=value`.

    Raises:
        RecipeError: It is not of that form, or changes nothing, or what no recipe has.
    """
    name, colon, rest = text.partition(":")
    settings = tuple(part.strip() for part in rest.split(";") if part.strip())
    factor = Factor(name.strip(), settings)
    if not colon or not settings or not factor.key or any("=" not in setting for setting in settings):
        raise RecipeError(
            f"--factor {text!r} is not of the form NAME: key=value; key=value",
            do='write e.g. --factor "mixup: augment.mixup=0.2; augment.mix_prob=0.5"',
            more=DOCS,
        )
    if factor.key in (BASE, ALL):
        raise RecipeError(f"--factor {text!r}: {factor.key!r} is the name of an arm", do="give it another name")
    if recipe.with_settings(list(settings)) == recipe:
        raise RecipeError(
            f"--factor {text!r} changes nothing: the recipe has it already",
            do=f"take it out of the base first, e.g. --set {settings[0].partition('=')[0]}=...",
            more=DOCS,
        )
    return factor


def ablation(
    data: Sequence[str],
    factors: Sequence[Factor],
    recipe: Recipe,
    *,
    design: str,
    seeds: int,
    retune: Sequence[str] = (),
    tune_epochs: int = 3,
    per_class: int | None = None,
    part: str = "test",
    quarantine: Path | None = None,
) -> Study:
    """Return the study of a recipe's parts.

    Args:
        recipe: The base, with none of the factors.
        design: one-at-a-time: the base, and each factor on its own; cumulative: one after the other, in the order
            given; leave-one-out: all, and all but each; factorial: every combination, with main effects and
            interactions.
        retune: Settings that every arm tries on validation first, beside the recipe's own: `optim.lr=0.01`.

    Raises:
        RecipeError: An unknown design or part, too few or too many factors, two of a name, more seeds than folds.
    """
    _check(factors, recipe, design, seeds, part)
    for setting in retune:
        recipe.with_settings([setting])
    datasets, subsets = data_sets(data, [Subset(per_class=per_class)], quarantine)
    tries = ({}, *(Factor("", (setting,)).change for setting in retune))
    search = Tune(tries=tries, epochs=tune_epochs) if retune else None
    return Study(
        name="ablate",
        title=f"{len(factors)} parts of the recipe {recipe.name}, {design}",
        part="val" if part == "val" else "test",
        reference=BASE,
        about=f"Parts: {'; '.join(factor.text for factor in factors)}.",
        scales={"own": Scale(seeds=seeds, subsets=subsets)},
        datasets=datasets,
        base=base_of(recipe),
        arms={
            _key(chosen, factors): Arm(title=_title(chosen, factors), tune=search, recipe=_change(chosen))
            for chosen in _arms(factors, design)
        },
        questions=tuple(_questions(factors, design)),
    )


def _check(factors: Sequence[Factor], recipe: Recipe, design: str, seeds: int, part: str) -> None:
    if design not in get_args(Design):
        raise RecipeError(f"--design {design!r}", do=f"choose {', '.join(get_args(Design))}", more=DOCS)
    if part not in ("test", "val"):
        raise RecipeError(f"--part {part!r}", do="choose test or val")
    if not factors or len({factor.key for factor in factors}) < len(factors):
        raise RecipeError(
            "an ablation needs factors, each with a name of its own", do='add --factor "NAME: key=value"', more=DOCS
        )
    if design == "factorial" and len(factors) > MOST_FACTORS:
        raise RecipeError(
            f"{len(factors)} factors make {2 ** len(factors)} arms", do=f"choose at most {MOST_FACTORS}", more=DOCS
        )
    if recipe.stages:
        raise RecipeError(f"the recipe {recipe.name!r} has stages", do="ablate a recipe without stages", more=DOCS)
    folds = round(1 / recipe.data.val_fraction)
    if part == "test" and seeds > folds:
        raise RecipeError(
            f"{seeds} seeds, but data.val_fraction={recipe.data.val_fraction} makes {folds} folds",
            do=f"choose at most {folds} seeds, or --set data.val_fraction={1 / seeds:.3g}",
        )


def _arms(factors: Sequence[Factor], design: str) -> list[tuple[Factor, ...]]:
    """Return the factors that are on in each arm."""
    whole = tuple(factors)
    if design == "one-at-a-time":
        return [(), *((factor,) for factor in factors)]
    if design == "cumulative":
        return [whole[:count] for count in range(len(whole) + 1)]
    if design == "leave-one-out":
        return [whole, *(tuple(one for one in whole if one != left) for left in whole), ()]
    return [tuple(itertools.compress(whole, chosen)) for chosen in itertools.product((False, True), repeat=len(whole))]


def _key(chosen: Sequence[Factor], factors: Sequence[Factor]) -> str:
    if len(chosen) == len(factors) > 1:
        return ALL
    return "+".join(factor.key for factor in chosen) or BASE


def _title(chosen: Sequence[Factor], factors: Sequence[Factor]) -> str:
    if not chosen:
        return "the base"
    if 1 < len(factors) == len(chosen) + 1:
        (left,) = (factor for factor in factors if factor not in chosen)
        return f"all but {left.name}"
    return "all" if len(chosen) == len(factors) > 1 else " + ".join(factor.name for factor in chosen)


def _change(chosen: Sequence[Factor]) -> dict[str, Any]:
    return merged(*(factor.change for factor in chosen))


def _questions(factors: Sequence[Factor], design: str) -> Iterator[Question]:
    def key(*chosen: Factor) -> str:
        return _key([factor for factor in factors if factor in chosen], factors)

    if design == "one-at-a-time":
        for factor in factors:
            yield Question(ask=f"Does {factor.name} help?", short=factor.name, first=key(factor), second=BASE)
        return
    if design == "cumulative":
        for place, factor in enumerate(factors):
            before = " and ".join(one.name for one in factors[:place])
            after = f" after {before}" if before else ""
            ask = f"Does {factor.name} help{after}?"
            yield Question(
                ask=ask, short=f"+ {factor.name}", first=key(*factors[: place + 1]), second=key(*factors[:place])
            )
        return
    if design == "leave-one-out":
        for factor in factors:
            rest = [one for one in factors if one != factor]
            ask = f"Does {factor.name} help, with all the others on?"
            yield Question(ask=ask, short=factor.name, first=key(*factors), second=key(*rest))
        return
    combinations = [set(chosen) for chosen in _arms(factors, design)]
    for factor in factors:
        with_it, without = (tuple(key(*arm) for arm in combinations if (factor in arm) is on) for on in (True, False))
        ask = f"Does {factor.name} help, over all combinations of the others?"
        yield Question(ask=ask, short=factor.name, first=with_it, second=without)
    for one, other in itertools.combinations(factors, 2):
        same, apart = (
            tuple(key(*arm) for arm in combinations if ((one in arm) == (other in arm)) is on) for on in (True, False)
        )
        ask = f"Do {one.name} and {other.name} help more together than each on its own?"
        yield Question(ask=ask, short=f"{one.name} × {other.name}", first=same, second=apart)
