"""`flyweight train`: one recipe, one folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.progress import TrainingProgress, need_train_extra

if TYPE_CHECKING:
    pass


def train(
    data: Annotated[str, typer.Argument(help="A folder, CSV, archive, .npz, or mnist:DIR, cifar10:DIR, sample, ...")],
    recipe: Annotated[str, typer.Option(help="A shipped recipe (flyweight recipe list) or a YAML file.")] = "default",
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command continues it.")] = Path("runs/train"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, e.g. optim.lr=0.1.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Where the bundle goes; default: OUT/bundle.")] = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern of what must stay on one side.")] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Leave out the images named in this file, one a line.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Begin with the weights of this finished run, where they fit.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Learn from the answers of this finished run too (distill.teacher).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU where there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train one recipe in a folder, and export it as a bundle.

    Stop it with Ctrl-C or lose power: the same command continues, and ends with the same weights.
    """
    need_train_extra()
    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data
    from flyweight.export import export
    from flyweight.measure.convergence import convergence
    from flyweight.train.recipe import load_recipe
    from flyweight.train.run import Finished, Resolving, refuse_other_split, run
    from flyweight.train.trained import Trained

    settings = [*(set_ or []), *([f"distill.teacher={json.dumps(str(teacher))}"] if teacher else [])]
    chosen = load_recipe(recipe).with_settings(settings)
    group = group or chosen.data.group
    initial = Trained.load(start) if start else None
    dataset = leave_out(load_data(data, group=group), quarantine)
    if initial is not None:
        known = {"fingerprint": initial.data.get("fingerprint"), "split": initial.split}
        refuse_other_split(known, dataset, chosen, "--from")
    trained, epochs = None, chosen.total_epochs
    afresh: tuple[str, ...] = ()
    with TrainingProgress(quiet=as_json) as bars:
        for event in run(dataset, chosen, out, device=device, initial=initial, progress=bars.decoded):
            if isinstance(event, Resolving):
                epochs, afresh = event.recipe.total_epochs, event.afresh
            bars.show(event, epochs)
            trained = event.trained if isinstance(event, Finished) else trained
    assert trained is not None
    shipped = export(trained, dataset, bundle or out / "bundle")
    result = {**trained.metrics, "run": str(out), "bundle": str(shipped.path), "epochs": len(trained.history)}
    result["afresh"] = list(afresh)
    course = convergence(trained.history, trained.metrics)
    result["convergence"] = dataclasses.asdict(course)
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"validation accuracy {100 * trained.metrics['val_accuracy']:.2f} % of {int(trained.metrics['val_n'])} images"
    )
    gap = "" if course.gap is None else f"; train − val {100 * course.gap:+.2f} points"
    print(
        f"90 % of its best after {course.epochs_to_90} epochs, 99 % after {course.epochs_to_99}; "
        f"largest drop {100 * course.largest_drop:.2f} points{gap}"
    )
    print(f"run     {out}\nbundle  {shipped.path}")
    print(f"next    flyweight verify {shipped.path} --data {data}")
