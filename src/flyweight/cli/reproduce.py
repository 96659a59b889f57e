"""`flyweight reproduce`: a published study, run again on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flyweight.cli.progress import Bars, need_train_extra
from flyweight.errors import DataError, RecipeError
from flyweight.runtime.environment import usable_cores


def reproduce(
    study: Annotated[str, typer.Argument(help="Name of a shipped study: tiny_cnn, tiny_family.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data sets; default: the variable FLYWEIGHT_DATA.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this data set (repeat).")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm and what it needs (repeat).")] = None,
    scale: Annotated[str, typer.Option(help="smoke: two minutes; cpu: an hour on two cores; full: a day.")] = "cpu",
    seeds: Annotated[int | None, typer.Option(help="Runs of each arm; default: the scale's.", min=1)] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time, one thread each; default: cores.", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; default: runs/STUDY-SCALE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Run a published study again: its arms, over seeds, at equal training cost, with paired statistics.

    Stop it with Ctrl-C or lose power: the same command continues, and what is finished is never run again. The report
    is written after every run, from what is finished by then.
    """
    need_train_extra()
    from flyweight.report.study import build_study_report
    from flyweight.studies.analyse import analyse
    from flyweight.studies.schedule import TrialDone, TrialFailed, run_trials
    from flyweight.studies.study import check_name, load_study, trials
    from flyweight.studies.trial import Place

    chosen = load_study(study)
    check_name("scale", scale, chosen.scales)
    size = chosen.scales[scale]
    size = size.model_copy(update={"seeds": seeds}) if seeds else size
    folds = round(1 / chosen.base["data"]["val_fraction"])
    if chosen.part == "test" and size.seeds > folds:
        raise RecipeError(f"--seeds {size.seeds}, but there are {folds} folds", do=f"choose at most {folds}")
    order = trials(chosen, size, datasets=dataset or (), arms=arm or ())
    place = Place(_data_folder(data), out or Path("runs") / f"{study}-{scale}")
    failed: list[TrialFailed] = []
    with Bars(quiet=as_json) as bars:
        for event in run_trials(chosen, size, order, place, jobs=jobs or usable_cores()):
            for line in _shown(event, bars, order):
                bars.say(line)
            if isinstance(event, TrialFailed):
                failed.append(event)
            elif isinstance(event, TrialDone) and not event.again:  # the page follows the study
                build_study_report(analyse(chosen, scale, order, place), place.out)
    facts = analyse(chosen, scale, order, place)
    files = build_study_report(facts, place.out)
    if as_json:
        print(json.dumps(facts.model_dump(mode="json")))
    else:
        _print(facts)
        print(f"report  {files.html}")
    if failed:
        raise failed[0].error


def _data_folder(given: Path | None) -> Path:
    folder = given or (Path(os.environ["FLYWEIGHT_DATA"]) if os.environ.get("FLYWEIGHT_DATA") else None)
    if folder is None or not folder.is_dir():
        raise DataError(
            f"the data sets of the study are not to be found: {'no folder was named' if folder is None else folder}",
            do="name the folder that holds them: --data DIR, or the variable FLYWEIGHT_DATA",
        )
    return folder


def _shown(event: Any, bars: Bars, order: list[Any]) -> Iterator[str]:
    """Move the bars; yield the lines to print."""
    kind = type(event).__name__
    if kind == "Running":
        for trial, epochs in event.trials:
            bars.update(trial.name, epochs, max(epochs, 1), f"  {trial.name}: {epochs} epochs done")
        return
    done = int(bars.done.get("study", 0)) + 1
    bars.update("study", done, len(order), "runs")
    bars.drop(event.trial.name)
    if kind == "TrialFailed":
        yield f"{event.trial.name:44} failed: {event.error.what}"
    elif not event.again:
        result = event.result
        yield (
            f"{event.trial.name:44} {100 * result['accuracy']:6.2f} %  {result['params']:6,} parameters  "
            f"{result['epochs']:3d} epochs  {result['train_seconds']:5.0f} s"
        )


def _print(facts: Any) -> None:
    for data in facts.datasets:
        images = f"{data.test_images:,} {'test' if facts.part == 'test' else 'validation'} images"
        print(f"\n{data.title}, {images}, {len(data.seeds)} seeds")
        for one in sorted(data.arms, key=lambda one: -one.accuracy.value):
            low, high = one.accuracy.low, one.accuracy.high
            spread = "" if low is None else f"  [{100 * low:.2f}, {100 * high:.2f}]"
            cost = "" if one.cost_ratio is None else f"  cost {one.cost_ratio:.3f}"
            print(f"  {100 * one.accuracy.value:6.2f} %{spread:18}  {one.params:6,} parameters{cost}  {one.title}")
        if data.published:
            reached = "reached" if data.published.reached else "not reached"
            print(f"  published {100 * data.published.accuracy:g} %: {reached}")
    for verdict in facts.verdicts:
        low, value, high = (100 * (getattr(verdict.difference, part) or 0.0) for part in ("low", "value", "high"))
        print(f"\n{verdict.question} ({verdict.dataset})")
        print(
            f"  {verdict.answer}: {value:+.2f} points [{low:+.2f}, {high:+.2f}], p {verdict.p_holm:.2g} after Holm, "
            f"{verdict.seeds} seeds"
        )
    if facts.missing:
        print(f"\n{len(facts.missing)} runs are not finished; run the same command again")
