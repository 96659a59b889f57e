"""`flyweight compare`: networks on your data, trained alike, timed on this machine, tested in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.lists import numbers
from flyweight.cli.progress import need_train_extra
from flyweight.cli.studying import Jobs, TrainOn, run_study
from flyweight.errors import RecipeError

if TYPE_CHECKING:
    from flyweight.studies.study import Subset


def compare(
    data: Annotated[list[str], typer.Argument(help="Data sets: a folder, CSV, archive, cifar10:DIR, sample, ...")],
    models: Annotated[
        list[str] | None, typer.Option("--models", help="Network (repeat, or several separated by commas).")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each network on each data set.", min=1, max=10)] = 3,
    recipe: Annotated[
        str, typer.Option(help="What all are trained by (flyweight recipe list); several, a,b, make an arm each.")
    ] = "compare",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, e.g. epochs=5.")] = None,
    tune: Annotated[
        int,
        typer.Option(help="Learning rates that each tries on validation first, the same for all.", min=1, max=9),
    ] = 1,
    tune_epochs: Annotated[int, typer.Option(help="Epochs of each try.", min=1)] = 3,
    classes: Annotated[int | None, typer.Option(help="Use the first so many classes.", min=2)] = None,
    per_class: Annotated[
        str | None, typer.Option(help="Use so many training images a class; several, 50,200, rank on each (nested).")
    ] = None,
    fraction: Annotated[
        str | None, typer.Option(help="Use this share of the training images; several, 0.1,0.3,1, rank on each.")
    ] = None,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(help="Add an arm that begins with these weights (repeat)."),
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Leave out the images named in this file, one a line.")
    ] = None,
    part: Annotated[str, typer.Option(help="Compare on test, or on val where the outcome decides something.")] = "test",
    jobs: Jobs = None,
    device: TrainOn = "cpu",
    out: Annotated[Path, typer.Option(help="Folder; the same command continues it.")] = Path("runs/compare"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Train every network on every data set with every seed, time their files, and say which differ.

    Stop it with Ctrl-C or lose power: the same command continues, and what is finished is never run again. OUT holds
    report.html (which follows the study while it runs), report.json, table.csv and table.tex.
    """
    need_train_extra()
    from flyweight.studies.compared import DEFAULT_MODELS, comparison
    from flyweight.studies.study import trials
    from flyweight.studies.trial import Place
    from flyweight.train.recipe import load_recipe

    names = [name for given in models or [] for name in given.split(",") if name] or list(DEFAULT_MODELS)
    first, *more = [load_recipe(name).with_settings(set_ or []) for name in recipe.split(",")]
    study = comparison(
        data,
        names,
        first,
        seeds=seeds,
        more=more,
        tries=tune,
        tune_epochs=tune_epochs,
        sizes=_sizes(classes, per_class, fraction),
        part=part,
        pretrained=pretrained or [],
        quarantine=quarantine,
    )
    size = study.scales["own"]
    run_study(study, "own", size, trials(study, size), Place(Path(), out, device), jobs=jobs, as_json=as_json)


def _sizes(classes: int | None, per_class: str | None, fraction: str | None) -> list[Subset]:
    from flyweight.studies.study import Subset

    counts = [] if per_class is None else numbers(per_class, "--per-class", int)
    shares = [] if fraction is None else numbers(fraction, "--fraction", float)
    if counts and shares:
        raise RecipeError("--per-class and --fraction are two ways to say one thing", do="give one of them")
    if 1 in counts or any(share > 1 for share in shares):
        raise RecipeError(
            f"--per-class {per_class}" if counts else f"--fraction {fraction}",
            do="give 2 images or more" if counts else "give shares of at most 1",
        )
    sizes = [{"per_class": count} for count in counts] + [{"fraction": share} for share in shares]
    return [Subset.model_validate({"classes": classes, **size}) for size in sizes or [{}]]
