"""`flyweight compare`: networks on your data, trained alike, timed on this machine, tested in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.progress import need_train_extra
from flyweight.cli.studying import conduct
from flyweight.runtime.environment import usable_cores


def compare(
    data: Annotated[list[str], typer.Argument(help="Data sets: a folder, CSV, archive, cifar10:DIR, sample, ...")],
    models: Annotated[
        list[str] | None, typer.Option("--models", help="Network (repeat, or several separated by commas).")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each network on each data set.", min=1, max=10)] = 3,
    recipe: Annotated[str, typer.Option(help="What all are trained by (flyweight recipe list).")] = "compare",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, e.g. epochs=5.")] = None,
    tune: Annotated[
        int,
        typer.Option(help="Learning rates that each tries on validation first, the same for all.", min=1, max=9),
    ] = 1,
    tune_epochs: Annotated[int, typer.Option(help="Epochs of each try.", min=1)] = 3,
    classes: Annotated[int | None, typer.Option(help="Use the first so many classes.", min=2)] = None,
    per_class: Annotated[int | None, typer.Option(help="Use so many training images a class (nested).", min=2)] = None,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(help="Add an arm that begins with these weights (repeat)."),
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Leave out the images named in this file, one a line.")
    ] = None,
    part: Annotated[str, typer.Option(help="Compare on test, or on val where the outcome decides something.")] = "test",
    jobs: Annotated[int | None, typer.Option(help="Runs at a time, one thread each; default: cores.", min=1)] = None,
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
    study = comparison(
        data,
        names,
        load_recipe(recipe).with_settings(set_ or []),
        seeds=seeds,
        tries=tune,
        tune_epochs=tune_epochs,
        classes=classes,
        per_class=per_class,
        part=part,
        pretrained=pretrained or [],
        quarantine=quarantine,
    )
    size = study.scales["own"]
    conduct(study, "own", size, trials(study, size), Place(Path(), out), jobs=jobs or usable_cores(), as_json=as_json)
