"""Checkpoints: the whole `State` of a run in one file, replaced atomically, read back without pickle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from flyweight.errors import TrainingError
from flyweight.files import write_bytes
from flyweight.train.loop import State

FORMAT = 3


def save_checkpoint(state: State, path: Path) -> None:
    """Write weights, average, optimizer, position and history to `path`, whole or not at all.

    Raises:
        OutputError: The disk is full or the folder cannot be written; the checkpoint before is untouched.
    """
    content = {
        "format": FORMAT,
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average.state_dict() if state.average else None,
        "position": {
            "stage": state.stage,
            "epoch": state.epoch,
            "step": state.step,
            "images_seen": state.images_seen,
            "seconds": state.seconds,
            "load_seconds": state.load_seconds,
            "core_seconds": state.core_seconds,
        },
        "loss_sum": state.loss_sum,
        "start_loss": state.start_loss,
        "grad_norms": torch.stack(state.grad_norms) if state.grad_norms else None,
        "history": state.history,
        "afresh": list(state.afresh),
        "best": state.best,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def checkpoint_stage(path: Path) -> int:
    """Return the stage in which a checkpoint was written; raises as `load_checkpoint`."""
    return int(_read(path, "cpu")["position"]["stage"])


def load_checkpoint(state: State, path: Path, device: str) -> None:
    """Put what `save_checkpoint` wrote back into `state`. There is no random state: see `loop.py`.

    Raises:
        TrainingError: The file is no checkpoint, or of another network.
    """
    content = _read(path, device)
    try:
        state.network.load_state_dict(content["network"])
        state.optimizer.load_state_dict(content["optimizer"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _unusable(path, error) from error
    state.afresh = tuple(content.get("afresh", ()))
    position = content["position"]
    state.epoch, state.step, state.images_seen = position["epoch"], position["step"], position["images_seen"]
    state.seconds, state.load_seconds = position["seconds"], position.get("load_seconds", 0.0)
    state.core_seconds = position.get("core_seconds", 0.0)
    state.loss_sum, state.history, state.best = content["loss_sum"], content["history"], content["best"]
    norms = content.get("grad_norms")  # neither it nor the next is there where an earlier version wrote the file
    state.start_loss, state.grad_norms = content.get("start_loss"), [] if norms is None else list(norms.unbind())


def _read(path: Path, device: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever the damaged bytes lead it to
        raise _unusable(path, error) from error
    if content.get("format") != FORMAT:
        raise _unusable(path, ValueError(f"it has format {content.get('format')}, this version writes {FORMAT}"))
    return content


def _unusable(path: Path, error: Exception) -> TrainingError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return TrainingError(f"{path} cannot be resumed: {first}", do="start again in an empty folder")
