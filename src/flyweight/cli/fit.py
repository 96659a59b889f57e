"""`flyweight fit`: the whole way in one command."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight.cli.progress import TrainingProgress, afresh_line, need_train_extra
from flyweight.errors import BudgetError, RecipeError


def fit(
    data: Annotated[str, typer.Argument(help="A folder, CSV, archive, .npz, or mnist:DIR, cifar10:DIR, sample, ...")],
    budget: Annotated[
        str, typer.Option(help='Limits, e.g. "latency_p90<2ms,size<500KB", or phone, laptop, ...')
    ] = "laptop",
    out: Annotated[Path, typer.Option(help="Folder of the result; the same command continues it.")] = Path("runs/fit"),
    minutes: Annotated[float, typer.Option(help="Time for training.", min=0.1)] = 10.0,
    maximize: Annotated[str | None, typer.Option(help="accuracy, balanced_accuracy, macro_f1 or min_recall.")] = None,
    device: Annotated[
        str | None, typer.Option(help="The device that the limits are for (flyweight device list); host without.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Of the measured inference, at most.", min=1)] = 1,
    models: Annotated[list[str] | None, typer.Option(help="Networks to try (repeat); default: a selection.")] = None,
    sizes: Annotated[list[int] | None, typer.Option(help="Image sizes in px (repeat); default: two.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Train every candidate with this recipe.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Continue from this bundle with new images or classes.")
    ] = None,
    compress: Annotated[
        list[str] | None,
        typer.Option(help="Compress the pick (repeat), if a trial says ship: prune:macs=0.5, finetune, int8, ..."),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(help="Runtimes to time the pick on: onnxruntime,openvino,litert, or none; default: installed."),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern of what must stay on one side.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Labelled images and a budget in; the most accurate classifier that meets it out, proven by a bundle."""
    need_train_extra()
    from flyweight.fit import FitRequest, Fitted
    from flyweight.fit import fit as run_fit
    from flyweight.measure.budget import Budget
    from flyweight.train.recipe import load_recipe

    if compress:
        from flyweight.compress.chain import in_order, parse_steps

        in_order(parse_steps(compress))
    chosen = load_recipe(recipe) if recipe else None
    if chosen is not None and chosen.stages:
        raise RecipeError(
            f"--recipe {recipe} has {len(chosen.stages)} stages, and fit plans the length of one",
            do=f"train it alone: flyweight train {shlex.quote(data)} --recipe {recipe}",
        )
    request = FitRequest(
        data=data,
        budget=Budget.parse(budget, maximize=maximize, device=device),
        out=out,
        minutes=minutes,
        threads=threads,
        seed=seed,
        models=tuple(models or ()),
        sizes=tuple(sizes or ()),
        group=group,
        recipe=chosen,
        start=start,
        runtimes=_runtimes(runtimes),
        compress=tuple(compress or ()),
        command=shlex.join(["flyweight", *sys.argv[1:]]),
    )
    fitted: Fitted | None = None
    with TrainingProgress(quiet=as_json) as bars:
        for event in run_fit(request, progress=bars.stage):
            if isinstance(event, Fitted):
                fitted = event
            else:
                _show(event, bars)
    assert fitted is not None
    _end(fitted, request, as_json=as_json)


def _runtimes(text: str | None) -> tuple[str, ...] | None:
    """Return the runtimes that were named; None where all that are installed are meant. Raises BudgetError."""
    from flyweight.fit.runtimes import OFFERED

    if text is None:
        return None
    names = () if text == "none" else tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in OFFERED]
    if unknown:
        raise BudgetError(
            f"--runtimes: the pick is not timed on {unknown[0]!r}; on {', '.join(OFFERED)}",
            do="name some of these, or none",
        )
    return names


def _show(event: Any, bars: TrainingProgress) -> None:
    if type(event).__name__ == "Stage":
        bars.say(f"{event.name:8}  {event.text}")
        return
    planned, name = event.round, type(event.event).__name__
    label = f"round {planned.number + 1}: {planned.candidate.name}"
    bars.update("trainings", event.done, event.total, "trainings")
    if name == "Resolving" and event.event.afresh:
        bars.say(f"{label}: {afresh_line(event.event.afresh)}")
    elif name == "StepDone":
        inner = event.event
        bars.update("train", inner.epoch * inner.steps + inner.step, planned.epochs * inner.steps, label)
    elif name == "Finished":
        bars.drop("train")
        accuracy = event.event.trained.metrics["val_accuracy"]
        bars.say(
            f"round {planned.number + 1}   {planned.candidate.name:28} {planned.epochs:3d} epochs of "
            f"{planned.subset:6,} images   val accuracy {100 * accuracy:.2f} %"
        )


def _end(fitted: Any, request: Any, *, as_json: bool) -> None:
    from flyweight.fit.story import summary

    winner = fitted.pick.winner
    if as_json:
        test = fitted.test
        facts = {
            "pick": winner.name,
            "bundle": str(fitted.bundle.path),
            "report": str(fitted.report),
            "accuracy": test.top1,
            "accuracy_low": test.low,
            "accuracy_high": test.high,
            "n": test.n,
            **{f"{name}_ms" if name.startswith("latency") else name: value for name, value in winner.values.items()},
            "budget": [check.to_json() for check in winner.checks],
        }
        print(json.dumps(facts))
        return
    for line in summary(fitted.pick, fitted.test, request.threads, request.budget.device):
        print(line)
    print(f"bundle    {fitted.bundle.path}\nreport    {fitted.report}")
    print(f"next      flyweight predict {fitted.bundle.path} YOUR_PHOTO.jpg")
