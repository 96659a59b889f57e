"""`flyweight reproduce`: a published study, run again on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.progress import need_train_extra
from flyweight.cli.studying import Jobs, TrainOn, predict_study, run_study
from flyweight.errors import DataError


def reproduce(
    study: Annotated[
        str,
        typer.Argument(
            help="A shipped study: tiny_cnn, tiny_family, lightweight_five, tuning_seven, few_images, all_images."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data sets; default: the variable FLYWEIGHT_DATA.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this data set (repeat).")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm and what it needs (repeat).")] = None,
    scale: Annotated[
        str, typer.Option(help="smoke: a minute or two; cpu: hours of one core; full: all images, long.")
    ] = "cpu",
    seeds: Annotated[int | None, typer.Option(help="Runs of each arm; default: the scale's.", min=1)] = None,
    jobs: Jobs = None,
    device: TrainOn = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder of the study; default: runs/STUDY-SCALE.")] = None,
    predict: Annotated[
        bool, typer.Option("--predict", help="Print what the runs will cost, from a few timed steps, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Run a published study again: its arms, over seeds, at equal training cost, with paired statistics.

    Stop it with Ctrl-C or lose power: the same command continues, and what is finished is never run again. The report
    is written after every run, from what is finished by then.
    """
    need_train_extra()
    from flyweight.studies.study import plan_study
    from flyweight.studies.trial import Place

    chosen, size, order = plan_study(study, scale, seeds=seeds, datasets=dataset or (), arms=arm or ())
    place = Place(_data_folder(data), out or Path("runs") / f"{study}-{scale}", device)
    if predict:
        predict_study(chosen, size, order, place, jobs=jobs, as_json=as_json)
    else:
        run_study(chosen, scale, size, order, place, jobs=jobs, as_json=as_json)


def _data_folder(given: Path | None) -> Path:
    folder = given or (Path(os.environ["FLYWEIGHT_DATA"]) if os.environ.get("FLYWEIGHT_DATA") else None)
    if folder is None or not folder.is_dir():
        raise DataError(
            f"the data sets of the study are not to be found: {'no folder was named' if folder is None else folder}",
            do="name the folder that holds them: --data DIR, or the variable FLYWEIGHT_DATA",
        )
    return folder
