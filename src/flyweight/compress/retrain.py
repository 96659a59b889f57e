"""Train on from a compressed network: a run like any other, in the folder of the step, that can be stopped."""

from __future__ import annotations

from typing import Any

from flyweight.compress.context import Context, Progressing
from flyweight.train.recipe import ModelPart, OptimPart, Recipe, SchedulePart
from flyweight.train.run import Finished, run
from flyweight.train.trained import Trained

TRAINING = "training"  # folder of the run inside the step's


def retrain(trained: Trained, context: Context, recipe: Recipe) -> Progressing:
    """Yield the events of a run that begins with `trained`, on its own parts of the data; return what it ends with.

    Raises:
        TrainingError, RecipeError: As `train.run.run`.
    """
    parts = context.split(trained)
    events = run(
        context.dataset,
        recipe,
        context.folder / TRAINING,
        device=context.device,
        parts=parts,
        initial=trained,
    )
    for event in events:
        if isinstance(event, Finished):
            return event.trained
        yield event
    raise AssertionError("a run ends with Finished")


def continued(trained: Trained, *, name: str, epochs: int, lr: float | None, lr_factor: float, **more: Any) -> Recipe:
    """Return the recipe that goes on from a run: its own data, augmentation and optimizer, at a lower rate.

    What probing decided for that run is taken over, so that nothing is probed again.

    Args:
        lr: The peak rate; None: `lr_factor` of the run's own.
        more: Further fields of the recipe.
    """
    base = trained.recipe
    last = base.stages[-1] if base.stages else None
    optim = (last.optim if last and last.optim else base.optim).model_dump()
    optim |= {"lr": lr if lr is not None else lr_factor * optim["lr"], "layer_decay": None}
    data = base.data.model_dump()
    data |= {"image_size": trained.preprocess.image_size, "channels": trained.preprocess.channels}
    settled = base.resolved
    chosen: dict[str, Any] = {}
    if settled is not None:
        chosen = {key: getattr(settled, key) for key in ("precision", "channels_last", "compile", "threads")}
    content = {
        **base.model_dump(),
        "name": name,
        "description": f"goes on from a run of {base.name!r}",
        "expected": {},
        "model": ModelPart(name="from").model_dump(),
        "data": data,
        "augment": (last.augment if last and last.augment else base.augment).model_dump(),
        "optim": OptimPart.model_validate(optim).model_dump(),
        "schedule": SchedulePart(warmup_fraction=0.1).model_dump(),
        "epochs": epochs,
        "clip_grad_norm": base.clip_grad_norm or 5.0,
        "stages": (),
        "second_view": None,
        "patience": None,
        "distill": None,
        "resolved": None,
        **chosen,
        **more,
    }
    return Recipe.model_validate(content)
