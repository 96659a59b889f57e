"""`flyweight stability`: which learning rates train, which are slow, which diverge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.lists import numbers
from flyweight.cli.progress import Bars, need_train_extra
from flyweight.cli.studying import Jobs, TrainOn, run_study

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Which learning rates train, which are slow, which diverge."
)
Data = Annotated[str, typer.Argument(help="A folder, CSV, archive, .npz, or mnist:DIR, cifar10:DIR, sample, ...")]
RecipeName = Annotated[str, typer.Option(help="A shipped recipe (flyweight recipe list) or a YAML file.")]
Quarantine = Annotated[Path | None, typer.Option(help="Leave out the images named in this file, one a line.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, e.g. model.name=resnet18.")]


@app.callback()
def _group() -> None:
    """Which learning rates train, which are slow, which diverge."""


@app.command("map")
def map_(
    data: Data,
    recipe: RecipeName = "default",
    lr: Annotated[str, typer.Option(help="Learning rates, separated by commas.")] = "0.003,0.01,0.03,0.1,0.3,1",
    batch_size: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "32,128",
    optim: Annotated[str | None, typer.Option(help="Optimizers, separated by commas; default: the recipe's.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each cell.", min=1)] = 1,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each run; default: the recipe's.", min=1)] = None,
    set_: Settings = None,
    classes: Annotated[int | None, typer.Option(help="Use the first so many classes.", min=2)] = None,
    per_class: Annotated[int | None, typer.Option(help="Use so many training images a class (nested).", min=2)] = None,
    quarantine: Quarantine = None,
    jobs: Jobs = None,
    device: TrainOn = "cpu",
    out: Annotated[Path, typer.Option(help="Folder; the same command continues it.")] = Path("runs/stability"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Train one recipe with every learning rate, batch size and optimizer, judged on validation images.

    A run that diverges is stopped early and is a result: the map says converged, slow or diverged for each cell. Stop
    it with Ctrl-C or lose power: the same command continues. OUT holds report.html, report.json and map.csv.
    """
    need_train_extra()
    from flyweight.studies.stability import stability
    from flyweight.studies.study import Subset, trials
    from flyweight.studies.trial import Place
    from flyweight.train.recipe import load_recipe

    chosen = load_recipe(recipe).with_settings([*(set_ or []), *([f"epochs={epochs}"] if epochs else [])])
    study = stability(
        data,
        chosen,
        lrs=numbers(lr, "--lr", float),
        batch_sizes=numbers(batch_size, "--batch-size", int),
        optims=[name.strip() for name in (optim or chosen.optim.name).split(",") if name.strip()],
        seeds=seeds,
        small=Subset(classes=classes, per_class=per_class),
        quarantine=quarantine,
    )
    size = study.scales["own"]
    run_study(study, "own", size, trials(study, size), Place(Path(), out, device), jobs=jobs, as_json=as_json)


@app.command("range")
def range_(
    data: Data,
    recipe: RecipeName = "default",
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-5,
    high: Annotated[float, typer.Option(help="The last, where the loss is not lost before.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Steps from the first to the last.")] = 200,
    set_: Settings = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern of what must stay on one side.")] = None,
    quarantine: Quarantine = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU where there is one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for range.html and range.json; default: none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Raise the learning rate with every step until the loss is lost, and suggest one: a guide for a few seconds."""
    need_train_extra()
    import dataclasses

    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data
    from flyweight.report.range_page import build_range_report
    from flyweight.train.range_curve import RangeTest
    from flyweight.train.range_test import range_test
    from flyweight.train.recipe import load_recipe

    chosen = load_recipe(recipe).with_settings(set_ or [])
    dataset = leave_out(load_data(data, group=group or chosen.data.group), quarantine)
    found: RangeTest | None = None
    with Bars(quiet=as_json) as bars:
        for event in range_test(dataset, chosen, low=low, high=high, steps=steps, device=device):
            if isinstance(event, RangeTest):
                found = event
            else:
                bars.update("range", *event, "steps")
    assert found is not None
    content = dataclasses.asdict(found)
    title = f"{chosen.model.name} on {dataset.name}, {chosen.optim.name}, batch {chosen.batch_size}"
    if out is not None:
        build_range_report(found, content, title, out)
    if as_json:
        print(json.dumps(content))
        return
    _print(found, title)
    if out is not None:
        print(f"report     {out / 'range.html'}")


def _print(found: object, title: str) -> None:
    print(title)
    for name in ("suggested", "steepest", "lowest", "diverges"):
        value = getattr(found, name)
        print(f"{name:10} {'not in this range' if value is None else f'{value:.3g}'}")
