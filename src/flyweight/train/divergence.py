"""Has a run diverged? Decided from what is recorded alone, so that a resumed run decides as an undisturbed one.

A loss that is not finite ends a run within `CHECK_EVERY` steps. One that only grows ends it after two or three epochs.
A spike, however high, does not, where the epochs after it learn again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from flyweight.errors import TrainingError

if TYPE_CHECKING:
    from flyweight.train.loop import State
    from flyweight.train.recipe import Recipe

CHECK_EVERY = 50  # steps between looks at the loss; each look waits for the device
RISEN = 1.5  # times its start: an epoch with a mean loss above that is worse than one that knows nothing
NOTHING = 0.95  # times its start: an epoch with a mean loss above that has learned nothing again


class Diverged(TrainingError):
    """The run has diverged: what it has learned is lost, and more of the same epochs do not bring it back.

    Attributes:
        epoch: In which that was seen, from 1, over all stages.
    """

    def __init__(self, what: str, *, do: str, more: str | None = None, epoch: int = 0) -> None:
        super().__init__(what, do=do, more=more)
        self.epoch = epoch


def divergence(rows: Sequence[Mapping[str, float]], chance: float) -> str:
    """Return in words why a run has diverged; "" while it has not.

    It has when the mean training loss of two epochs in a row is above `RISEN` times its start, or that of one epoch is
    and the next two have learned `NOTHING` again. The gradient's norm plays no part: where it is clipped, it may be
    large while the loss falls.

    Args:
        rows: Epochs of one stage so far, as `loop.EpochDone.row`.
        chance: Loss of one who knows nothing: ln K. The start is this, or the loss of the first batch where that is
            more.
    """
    if len(rows) < 2:
        return ""
    start = max(chance, rows[0].get("start_loss", rows[0]["train_loss"]))
    last = [row["train_loss"] / start for row in rows[-3:]]
    still = min(last[-2:]) > RISEN
    lost = len(last) == 3 and last[0] > RISEN and min(last[1:]) > NOTHING
    if not (still or lost):
        return ""
    losses = ", ".join(f"{share * start:.3g}" for share in last)
    return f"the training loss of the last epochs was {losses}, and {start:.3g} at the start"


def stop_if_diverged(state: State, recipe: Recipe, chance: float) -> None:
    """Raise Diverged where the epochs of this stage say so."""
    why = divergence([row for row in state.history if row["stage"] == state.stage], chance)
    if why:
        raise _diverged(f"{why}, seen after epoch {len(state.history)}", recipe, epoch=len(state.history))


def stop_if_not_finite(state: State, recipe: Recipe, steps: int) -> None:
    """Raise Diverged where the loss or the last gradient is NaN or infinite."""
    if torch.isfinite(state.loss_sum) and all(torch.isfinite(norm) for norm in state.grad_norms[-1:]):
        return
    first, epoch = max(0, (state.step - 1) // CHECK_EVERY * CHECK_EVERY), len(state.history) + 1
    what = "loss" if not torch.isfinite(state.loss_sum) else "gradient"
    raise _diverged(
        f"the {what} became NaN or infinite between steps {first} and {state.step} of {steps} in epoch {epoch}",
        recipe,
        epoch=epoch,
    )


def stop_if_validation_not_finite(row: Mapping[str, float], recipe: Recipe) -> None:
    """Raise Diverged where the weights give no finite loss on the validation images, though training's was."""
    if not math.isfinite(row["val_loss"]):
        epoch = int(row["epoch"])
        raise _diverged(f"the validation loss became {row['val_loss']} in epoch {epoch}", recipe, epoch=epoch)


def _diverged(what: str, recipe: Recipe, *, epoch: int) -> Diverged:
    lr = recipe.optim.lr
    return Diverged(
        f"{what} (optim.lr={lr:g}, precision={recipe.settled().precision})",
        do=f"lower the rate (--set optim.lr={lr / 10:g} with a new --out), warm up longer (schedule.warmup_fraction) "
        "or set clip_grad_norm=1; flyweight stability range finds a rate; the last checkpoint is kept",
        epoch=epoch,
    )
