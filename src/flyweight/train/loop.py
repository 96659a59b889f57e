"""The training loop. Read this first.

`train` is a generator: it yields after every step and every epoch, and whoever iterates logs, saves, stops, or reports
to a search. It keeps nothing of its own: all that changes is in `State`, and everything random is a function of (seed,
epoch, step). So a run that stops anywhere and continues from a saved `State` ends with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flyweight.data.batches import Batches
from flyweight.errors import TrainingError
from flyweight.train.divergence import CHECK_EVERY, stop_if_diverged, stop_if_not_finite, stop_if_validation_not_finite
from flyweight.train.loss import Loss
from flyweight.train.optim import Average, learning_rate
from flyweight.train.recipe import Recipe


@dataclass
class State:
    """All that training changes. `network` takes images (N, C, H, W) and gives logits (N, K)."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None = None
    stage: int = 0
    epoch: int = 0  # within the stage
    step: int = 0  # within the epoch
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    images_seen: int = 0  # within the epoch
    seconds: float = 0.0  # within the epoch
    load_seconds: float = 0.0  # of them, waiting for the next batch
    core_seconds: float = 0.0  # of the processor, meanwhile
    start_loss: Tensor | None = None  # of the stage's first batch
    grad_norms: list[Tensor] = field(default_factory=list)  # before clipping, of each step of the epoch that clips
    macs_per_image: float = 0.0  # of a forward and backward pass
    history: list[dict[str, float]] = field(default_factory=list)
    afresh: tuple[str, ...] = ()  # besides the head's: tensors that the weights to begin with do not have in this shape
    best: dict[str, Any] | None = None  # {"accuracy", "row", "weights"} where the recipe selects the best

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the running average where there is one."""
        return self.average.network if self.average else self.network


@dataclass(frozen=True)
class StepDone:
    """One optimizer step was made: `step` of `steps` in `epoch` (from 0, over all stages)."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch was made and validated.

    `row` has epoch, train_loss, val_loss, val_accuracy, lr, images_per_second; train_seconds, of which load_seconds
    went in waiting for the next batch, val_seconds, and core_seconds of the processor in both; where the recipe clips,
    grad_norm (mean over the steps, before clipping) and grad_norm_max; in a stage's first epoch start_loss (of its
    first batch).
    """

    row: dict[str, float]


def train(state: State, recipe: Recipe, train_batches: Batches, val_batches: Batches) -> Iterator[StepDone | EpochDone]:
    """Train until `recipe.epochs` or the end of patience, from wherever `state` stands.

    Raises:
        Diverged: The loss became NaN or infinite, or stayed far above its start (`train.divergence`).
        TrainingError: One image does not fit into memory.
    """
    steps, chance = len(train_batches), math.log(train_batches.num_classes)
    take_step = Stepper(state, recipe)
    for epoch in range(state.epoch, recipe.epochs):
        stop_if_diverged(state, recipe, chance)
        if out_of_patience(state, recipe):
            return
        asked = time.perf_counter()
        started, begun = asked - state.seconds, time.process_time() - state.core_seconds
        for images, targets in train_batches.epoch(epoch, start=state.step):
            state.load_seconds += time.perf_counter() - asked
            seed_step(recipe.seed, epoch, state.step)
            lr = learning_rate(recipe, (epoch * steps + state.step) / (recipe.epochs * steps))
            loss = take_step(images, targets, lr)
            state.start_loss = loss if state.start_loss is None else state.start_loss
            state.loss_sum += loss * len(images)
            state.images_seen += len(images)
            state.step += 1
            state.seconds, state.core_seconds = time.perf_counter() - started, time.process_time() - begun
            if state.step % CHECK_EVERY == 0 or state.step == steps:
                stop_if_not_finite(state, recipe, steps)
            yield StepDone(len(state.history), state.step, steps)
            asked = time.perf_counter()
        last = learning_rate(recipe, (epoch + 1 - 1 / steps) / recipe.epochs)
        row = {"epoch": len(state.history) + 1, "stage": state.stage, "lr": last}
        row |= {"train_loss": float(state.loss_sum) / max(state.images_seen, 1)}
        row |= {"train_macs": state.macs_per_image * state.images_seen}
        row |= _traces(state)
        row |= {"images_per_second": state.images_seen / state.seconds, "train_seconds": state.seconds}
        row |= {"load_seconds": state.load_seconds}
        asked = time.perf_counter()
        row |= validate(state.judged, val_batches, recipe)
        stop_if_validation_not_finite(row, recipe)
        row |= {"val_seconds": time.perf_counter() - asked, "core_seconds": time.process_time() - begun}
        finish_epoch(state, recipe, row)
        yield EpochDone(row)
    stop_if_diverged(state, recipe, chance)


class Stepper:
    """Makes one optimizer step on one batch, in as many passes as memory asks for."""

    def __init__(self, state: State, recipe: Recipe) -> None:
        self.state, self.recipe, plan = state, recipe, recipe.settled()
        self.micro_batch = plan.micro_batch
        self.autocast = torch.autocast(plan.device.split(":")[0], torch.bfloat16, enabled=plan.precision == "bf16")
        self.forward: Any = torch.compile(state.network) if plan.compile else state.network
        self.loss = Loss(recipe)
        self.frozen_norms = [module for module in state.network.modules() if _is_frozen_norm(module)]

    def __call__(self, images: Tensor, targets: Tensor, lr: float) -> Tensor:
        """Return the mean loss (0-dim, on the device, not waited for)."""
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        loss = self._backward(images, targets)
        self.update()
        return loss

    def update(self) -> None:
        """Clip the gradient, step, and move the average."""
        if self.recipe.clip_grad_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.state.network.parameters(), self.recipe.clip_grad_norm)
            self.state.grad_norms.append(norm)
        self.state.optimizer.step()
        if self.state.average:
            self.state.average.update(self.state.network)

    def _backward(self, images: Tensor, targets: Tensor) -> Tensor:
        while True:
            try:
                return self.passes(images, targets)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if self.micro_batch == 1:
                    raise TrainingError(
                        f"out of memory on a single image of {tuple(images.shape[1:])} px",
                        do="choose a smaller data.image_size or a smaller model",
                    ) from error
                self.micro_batch = (min(self.micro_batch, len(images)) + 1) // 2

    def passes(self, images: Tensor, targets: Tensor) -> Tensor:
        """Run forward and backward over a batch, in parts that fit into memory; return the mean loss."""
        self.loss.watch(self.state.network, images[:1])
        self.state.network.train()
        for norm in self.frozen_norms:  # its running statistics belong to the weights that do not move
            norm.eval()
        self.state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=images.device)
        for part, wanted in zip(images.split(self.micro_batch), targets.split(self.micro_batch), strict=True):
            with self.autocast:
                logits = self.forward(part)
                taught = self.loss.teacher(part) if self.loss.teacher else None
            loss = self.loss(logits.float(), wanted, taught) * (len(part) / len(images))
            loss.backward()
            total += loss.detach()
        return total


def predict_logits(network: nn.Module, batches: Batches, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) float32 and labels (N,) of every image, in order, on the CPU."""
    plan = recipe.settled()
    network.eval()
    logits, labels = [], []
    with (
        torch.inference_mode(),
        torch.autocast(plan.device.split(":")[0], torch.bfloat16, enabled=plan.precision == "bf16"),
    ):
        for images, wanted in batches.epoch(0):
            logits.append(network(images).float())
            labels.append(wanted)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def validate(network: nn.Module, batches: Batches, recipe: Recipe) -> dict[str, float]:
    """Return val_loss (nats per image) and val_accuracy (0 to 1)."""
    logits, labels = predict_logits(network, batches, recipe)
    accuracy = (logits.argmax(1) == labels).float().mean()
    return {"val_loss": float(F.cross_entropy(logits, labels)), "val_accuracy": float(accuracy)}


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Make dropout and stochastic depth of one step a function of (seed, epoch, step)."""
    torch.manual_seed(((seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63)


def out_of_patience(state: State, recipe: Recipe) -> bool:
    """True when the best epoch lies `recipe.patience` epochs back."""
    return recipe.patience is not None and state.best is not None and _since_best(state) >= recipe.patience


def _since_best(state: State) -> int:
    return len(state.history) - 1 - int(state.best["row"]) if state.best else 0


def _is_frozen_norm(module: nn.Module) -> bool:
    batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return batch_norm and module.weight is not None and not module.weight.requires_grad


def out_of_memory(error: BaseException) -> bool:
    """True for the allocator's failure on a GPU and, by its message, on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _traces(state: State) -> dict[str, float]:
    """Return what costs nothing to know of an epoch: the gradient's norm where it was clipped, the first loss."""
    found: dict[str, float] = {}
    if state.grad_norms:
        norms = torch.stack(state.grad_norms)
        found |= {"grad_norm": float(norms.mean()), "grad_norm_max": float(norms.max())}
    if state.epoch == 0 and state.start_loss is not None:
        found["start_loss"] = float(state.start_loss)
    return found


def finish_epoch(state: State, recipe: Recipe, row: dict[str, float]) -> None:
    """Add the row to the history, keep the best weights where the recipe asks for them, and turn to the next epoch."""
    state.history.append(row)
    keeps_best = recipe.select == "best" or recipe.patience is not None
    if keeps_best and (state.best is None or row["val_accuracy"] > state.best["accuracy"]):
        weights = {name: value.detach().clone() for name, value in state.judged.state_dict().items()}
        state.best = {"accuracy": row["val_accuracy"], "row": len(state.history) - 1, "weights": weights}
    state.epoch, state.step, state.images_seen = state.epoch + 1, 0, 0
    state.seconds, state.load_seconds, state.core_seconds = 0.0, 0.0, 0.0
    state.loss_sum, state.grad_norms = torch.zeros_like(state.loss_sum), []
