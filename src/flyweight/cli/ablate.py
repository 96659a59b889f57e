"""`flyweight ablate`: which parts of a recipe earn their place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.progress import need_train_extra
from flyweight.cli.studying import Jobs, TrainOn, run_study
from flyweight.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyweight.measure.statistics import Spread
    from flyweight.train.recipe import Recipe

SEEDS = 5


def ablate(
    data: Annotated[list[str], typer.Argument(help="Data sets: a folder, CSV, archive, cifar10:DIR, sample, ...")],
    factor: Annotated[
        list[str] | None,
        typer.Option("--factor", help='A part that is on or off: "NAME: key=value; key=value" (repeat).'),
    ] = None,
    design: Annotated[
        str, typer.Option(help="one-at-a-time, cumulative (in the order given), leave-one-out or factorial.")
    ] = "one-at-a-time",
    recipe: Annotated[str, typer.Option(help="The base, without the parts (flyweight recipe list).")] = "compare",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change the base, e.g. epochs=5.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help=f"Runs of each arm; default {SEEDS}, or what --detect needs.", min=1)
    ] = None,
    detect: Annotated[
        float | None, typer.Option(help="As many seeds as it takes to find a difference of so many points.", min=0.01)
    ] = None,
    spread: Annotated[
        float,
        typer.Option(
            help="Points by which the difference of two arms varies by seed (finished studies state it).",
            min=0.0,
        ),
    ] = 0.5,
    retune: Annotated[
        list[str] | None,
        typer.Option("--retune", help="Every arm tries this on validation first, e.g. optim.lr=0.01 (repeat)."),
    ] = None,
    tune_epochs: Annotated[int, typer.Option(help="Epochs of each try.", min=1)] = 3,
    per_class: Annotated[int | None, typer.Option(help="Use so many training images a class (nested).", min=2)] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Leave out the images named in this file, one a line.")
    ] = None,
    part: Annotated[str, typer.Option(help="Judge on test, or on val where the outcome decides something.")] = "test",
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be run and what it could find, and end.")
    ] = False,
    jobs: Jobs = None,
    device: TrainOn = "cpu",
    out: Annotated[Path, typer.Option(help="Folder; the same command continues it.")] = Path("runs/ablate"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Train a recipe with and without each of its parts, over seeds, and say which of them help.

    Stop it with Ctrl-C or lose power: the same command continues, and what is finished is never run again.
    """
    need_train_extra()
    from flyweight.measure.statistics import Spread
    from flyweight.studies.ablation import ablation, parse_factor
    from flyweight.studies.study import trials
    from flyweight.studies.trial import Place
    from flyweight.train.recipe import load_recipe

    base = load_recipe(recipe).with_settings(set_ or [])
    factors = [parse_factor(text, base) for text in factor or []]
    assumed = Spread(of_runs=spread / 100)
    tests = len(data) * (len(factors) + (len(factors) * (len(factors) - 1) // 2 if design == "factorial" else 0))
    images = _images(data, base, quarantine, part, per_class)
    count = seeds or (SEEDS if detect is None else _seeds(detect, images, base, max(tests, 1), assumed))
    study = ablation(
        data,
        factors,
        base,
        design=design,
        seeds=count,
        retune=retune or [],
        tune_epochs=tune_epochs,
        per_class=per_class,
        part=part,
        quarantine=quarantine,
    )
    size = study.scales["own"]
    order = trials(study, size)
    if not as_json or plan:
        print(_planned(len(study.arms), count, len(order), images, tests, assumed))
    if not plan:
        run_study(study, "own", size, order, Place(Path(), out, device), jobs=jobs, as_json=as_json)


def _images(data: Sequence[str], recipe: Recipe, quarantine: Path | None, part: str, per_class: int | None) -> int:
    """Return how many images the smallest data set is judged on."""
    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data
    from flyweight.data.subset import subset
    from flyweight.train.prepare import split_for

    counts = []
    for source in data:
        dataset = leave_out(load_data(source, group=recipe.data.group), quarantine)
        if per_class is not None:  # validation images are of the training part, which that makes smaller
            fraction, seed = recipe.data.test_fraction, recipe.data.split_seed
            dataset = subset(dataset, per_class=per_class, test_fraction=fraction, split_seed=seed)
        parts = split_for(dataset, recipe.data)
        counts.append(len(parts.val if part == "val" else parts.test))
    return min(counts)


def _seeds(points: float, images: int, recipe: Recipe, tests: int, spread: Spread) -> int:
    """Return as many seeds as it takes. Raises RecipeError where there are not so many folds."""
    from flyweight.measure.statistics import detectable, runs_needed

    folds = round(1 / recipe.data.val_fraction)
    found = runs_needed(points / 100, images, most=folds, tests=tests, spread=spread)
    if found is None:
        least = 100 * detectable(folds, images, tests=tests, spread=spread)
        raise RecipeError(
            f"--detect {points:g}: with {folds} seeds, as many as there are folds, and {images:,} images, differences "
            f"from {least:.2f} points on can be found",
            do=f"ask for --detect {least:.2f}, fewer factors, or more folds: --set data.val_fraction=0.05",
            more="docs/ablation.md",
        )
    return found


def _planned(arms: int, seeds: int, runs: int, images: int, tests: int, spread: Spread) -> str:
    from flyweight.measure.statistics import detectable

    text = f"{arms} arms × {seeds} seeds, {runs} trainings, judged on {images:,} images"
    if seeds < 3:
        return f"{text}; fewer than three seeds find nothing for certain"
    least = 100 * detectable(seeds, images, tests=max(tests, 1), spread=spread)
    return (
        f"{text}: a true difference of {least:.2f} points or more is found 4 times in 5, if the difference of two arms "
        f"varies by {100 * spread.of_runs:g} points from seed to seed (--spread) and they answer "
        f"{spread.disagreeing:.0%} of the images differently"
    )
