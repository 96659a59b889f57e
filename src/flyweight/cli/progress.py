"""Progress bars with the time left, on standard error; plain lines where that is not a terminal."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from flyweight.errors import MissingExtraError

TRAIN_EXTRA = ("torch", "torchvision", "timm", "onnxscript", "safetensors", "tensorboard")


def need_train_extra() -> None:
    """Check for the packages of the `train` extra.

    Raises:
        MissingExtraError: One is missing; the message names the line that installs it.
    """
    missing = [name for name in TRAIN_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"training needs {', '.join(missing)}, which this installation does not have",
            do='pip install "flyweight[train]"',
        )


class Bars:
    """A rich progress display that stays out of the way of pipes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(
            *columns, console=self.console, disable=quiet or not sys.stderr.isatty(), transient=True
        )
        self.quiet = quiet
        self.tasks: dict[str, TaskID] = {}
        self.done: dict[str, int] = {}

    def __enter__(self) -> Any:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def update(self, name: str, done: int, total: int, text: str | None = None) -> None:
        """Show that `done` of `total` are done."""
        self.done[name] = done
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(text or name, total=total)
        self.progress.update(self.tasks[name], completed=done, total=total, description=text or name)

    def drop(self, name: str) -> None:
        """Take a bar away."""
        if name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if not self.quiet:
            self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def afresh_line(names: Sequence[str]) -> str:
    """Return in one line which tensors do not begin with the weights that were given."""
    count = "1 tensor besides the head starts" if len(names) == 1 else f"{len(names)} tensors besides the head start"
    return f"{count} afresh, the first: {names[0]} (the weights to begin with have none of its shape)"


class TrainingProgress(Bars):
    """Shows the events of `train.run.run`."""

    def decoded(self, done: int, total: int) -> None:
        """Show how far the cache is."""
        self.update("decode", done, total, "decoding images")
        if done >= total:
            self.drop("decode")

    def stage(self, done: int, total: int) -> None:
        """Show how far the present stage is."""
        self.update("stage", done, total, "this stage")
        if done >= total:
            self.drop("stage")

    def show(self, event: Any, epochs: int) -> None:
        """Show one event."""
        kind = type(event).__name__
        if kind == "Resolving":
            plan = event.recipe.settled()
            layout = "channels_last" if plan.channels_last else "channels_first"
            self.say(f"{plan.device}, {plan.precision}, {layout}, {plan.threads} threads, {plan.image_size} px")
            if event.resumed_at:
                self.say(f"continuing after epoch {event.resumed_at}")
            if event.afresh:
                self.say(afresh_line(event.afresh))
        elif kind == "StepDone":
            self.update(
                "train",
                event.epoch * event.steps + event.step,
                epochs * event.steps,
                f"epoch {event.epoch + 1}/{epochs}",
            )
        elif kind == "EpochDone":
            row = event.row
            self.say(
                f"epoch {int(row['epoch']):3d}/{epochs}  train loss {row['train_loss']:.4f}  "
                f"val loss {row['val_loss']:.4f}  "
                f"val accuracy {100 * row['val_accuracy']:.2f} %  {row['images_per_second']:,.0f} images/s"
            )
