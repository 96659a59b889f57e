"""A few timed steps decide precision, layout, threads and compilation; the outcome is written into the recipe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.errors import TrainingError
from flyweight.train.loop import State, Stepper, out_of_memory
from flyweight.train.optim import make_optimizer
from flyweight.train.prepare import Prepared
from flyweight.train.recipe import Recipe, Resolved

IMBALANCE = 5.0  # largest over smallest class from which `balance: auto` weights the loss
WORTH_IT = 1.05  # a faster way must be this much faster than the plainer one
BF16_WORTH_IT = 1.15
COMPILE_FROM_SECONDS = 3600.0  # on the CPU, compiling is tried only for runs longer than this

Sample = tuple[Tensor, Tensor]
Build = Callable[[], nn.Module]


def resolve(recipe: Recipe, prepared: Prepared, build: Build, sample: Sample, *, device: str, resident: bool) -> Recipe:
    """Return the recipe with `resolved` filled in.

    Args:
        build: Gives a fresh network in training mode on the CPU.
        sample: One real training batch: images (N, C, S, S) and labels (N,) or targets (N, K).

    Raises:
        TrainingError: Not even one image fits into memory.
    """
    plan = planned(recipe, prepared, device=device, resident=resident)
    plan = _fit_micro_batch(recipe, plan, build, sample)
    images = recipe.total_epochs * len(prepared.split.train)
    return recipe.model_copy(update={"resolved": _fastest(recipe, plan, build, sample, images)})


def planned(recipe: Recipe, prepared: Prepared, *, device: str, resident: bool) -> Resolved:
    """Return what a run would be before anything is timed: where the recipe says auto, the plainest."""
    weights, sampling = _balance(recipe, prepared)
    return Resolved(
        device=device,
        precision="fp32" if recipe.precision == "auto" else recipe.precision,
        channels_last=True if recipe.channels_last == "auto" else recipe.channels_last,
        compile=recipe.compile is True,
        threads=_cores() if recipe.threads == "auto" else recipe.threads,
        micro_batch=recipe.batch_size,
        resident=resident,
        image_size=prepared.preprocess.image_size,
        channels=prepared.preprocess.channels,
        shape_policy="ragged" if prepared.shape_policy == "ragged" else "fixed",
        mean=prepared.preprocess.mean,
        std=prepared.preprocess.std,
        class_weights=weights,
        sampling=sampling,
    )


def _fastest(recipe: Recipe, plan: Resolved, build: Build, sample: Sample, images: int) -> Resolved:
    """Change one thing at a time and keep what is clearly faster."""
    speeds = {_label(plan): _speed(recipe, plan, build, sample)}
    best = speeds[_label(plan)]
    for change, worth_it in _changes(recipe, plan, images / best):
        tried = plan.model_copy(update=change)
        speed = _speed(recipe, tried, build, sample)
        speeds[_label(tried)] = speed
        if speed > best * worth_it:
            plan, best = tried, speed
    return plan.model_copy(update={"probe": {name: round(speed, 1) for name, speed in speeds.items()}})


def _changes(recipe: Recipe, plan: Resolved, run_seconds: float) -> Iterator[tuple[dict[str, Any], float]]:
    if recipe.threads == "auto" and plan.threads > 1 and plan.device == "cpu":
        yield {"threads": 1}, 1.0
    if recipe.channels_last == "auto":
        yield {"channels_last": False}, WORTH_IT
    if recipe.precision == "auto":
        yield {"precision": "bf16"}, BF16_WORTH_IT
    if recipe.compile == "auto" and (plan.device != "cpu" or run_seconds > COMPILE_FROM_SECONDS):
        yield {"compile": True}, WORTH_IT


def _label(plan: Resolved) -> str:
    layout = "channels_last" if plan.channels_last else "channels_first"
    return f"{plan.precision} {layout} {plan.threads} threads{' compiled' * plan.compile}"


def _speed(recipe: Recipe, plan: Resolved, build: Build, sample: Sample, seconds: float = 0.6) -> float:
    """Return training images per second: the fastest of several steps, after two to warm up."""
    torch.set_num_threads(plan.threads)
    step = _stepper(recipe, plan, build)
    images, targets = _on_device(sample, plan)
    times: list[float] = []
    for count in range(12):
        started = time.perf_counter()
        loss = step(images, targets, recipe.optim.lr * 1e-3)
        float(loss)  # waits for the device
        if count >= 2:
            times.append(time.perf_counter() - started)
        if len(times) >= 2 and sum(times) > seconds:
            break
    return len(images) / min(times)


def _fit_micro_batch(recipe: Recipe, plan: Resolved, build: Build, sample: Sample) -> Resolved:
    torch.set_num_threads(plan.threads)
    while True:
        try:
            _stepper(recipe, plan, build)(*_on_device(sample, plan), recipe.optim.lr * 1e-3)
            return plan
        except (torch.OutOfMemoryError, RuntimeError, TrainingError) as error:
            if not (isinstance(error, TrainingError) or out_of_memory(error)) or plan.micro_batch == 1:
                raise
            plan = plan.model_copy(update={"micro_batch": (plan.micro_batch + 1) // 2})


def _stepper(recipe: Recipe, plan: Resolved, build: Build) -> Stepper:
    network = on_device(build(), plan)
    resolved = recipe.model_copy(update={"resolved": plan})
    return Stepper(State(network, make_optimizer(network, recipe.optim)), resolved)


def on_device(network: nn.Module, plan: Resolved) -> nn.Module:
    """Return the network on the plan's device and in its memory layout."""
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    return network.to(device=plan.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def _on_device(sample: Sample, plan: Resolved) -> Sample:
    return sample[0].to(plan.device), sample[1].to(plan.device)


def _balance(recipe: Recipe, prepared: Prepared) -> tuple[tuple[float, ...] | None, bool]:
    counts = np.bincount(prepared.train_labels, minlength=len(prepared.dataset.classes))
    choice = recipe.balance
    if choice == "auto":
        choice = "loss" if counts.max() > IMBALANCE * max(int(counts.min()), 1) else "none"
    if choice != "loss":
        return None, choice == "sampling"
    weights = 1.0 / np.maximum(counts, 1)
    return tuple(float(w) for w in np.round(weights / weights.mean(), 6)), False


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
