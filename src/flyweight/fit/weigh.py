"""Weigh every candidate before training it: export the untrained network, time it, price its training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flyweight.export.onnx import export_untrained
from flyweight.files import write_json
from flyweight.fit.candidates import Candidate, recipe_for
from flyweight.measure.budget import Budget, Check
from flyweight.measure.weigh import weigh_files
from flyweight.models.architecture import Architecture
from flyweight.train.loop import State, Stepper
from flyweight.train.optim import Average, make_optimizer
from flyweight.train.probe import on_device
from flyweight.train.recipe import Recipe, Resolved

WEIGHED = "weighed.json"


@dataclass(frozen=True)
class Weighed:
    """A candidate and what it costs, known before it is trained.

    Attributes:
        values: By metric of a budget: latency_p50, latency_p90 (ms), size, memory (bytes), params, macs.
        checks: The verdict on each limit.
        train_seconds_per_image: Of one step of its recipe.
    """

    candidate: Candidate
    values: dict[str, float | None]
    latency: dict[str, Any]
    checks: tuple[Check, ...]
    threads: int
    train_seconds_per_image: float

    @property
    def within(self) -> bool:
        """True where no limit is broken."""
        return all(check.status != "violated" for check in self.checks)


def weigh(
    candidates: Sequence[Candidate],
    budget: Budget,
    folder: Path,
    *,
    channels: int,
    num_classes: int,
    threads: int,
    base: Recipe | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Weighed]:
    """Return the cost of every candidate; latencies are taken interleaved, in one run.

    Args:
        base: What candidates train by, as `recipe_for` takes it.

    A candidate whose file is up to four times too large, and breaks no other limit, comes a second time, as int8.

    Raises:
        ModelError, ExportError: A candidate cannot be built or exported.
        OutputError: The folder cannot be written.
    """
    common = {"num_classes": num_classes, "channels": channels, "threads": threads, "budget": budget.text}
    asked = {"candidates": [candidate.name for candidate in candidates], **common}
    known = _remembered(folder / WEIGHED, asked, budget, threads)
    if known:
        return known
    architectures = {c: Architecture(c.model, num_classes, channels, c.image_size) for c in candidates}
    weighed = _weigh_all(architectures, budget, folder, threads, base, progress)
    smaller = {
        replace(entry.candidate, precision="int8"): architectures[entry.candidate].quantize()
        for entry in weighed
        if _too_large_in_float_alone(entry)
    }
    if smaller:
        weighed += _weigh_all(smaller, budget, folder, threads, base, progress)
    write_json(folder / WEIGHED, {**asked, "costs": [_costs(entry) for entry in weighed]})
    return weighed


def _too_large_in_float_alone(entry: Weighed) -> bool:
    """True where one byte a weight in place of four might do, and nothing else has to give."""
    broken = [check for check in entry.checks if check.status == "violated"]
    return {check.metric for check in broken} == {"size"} and all(
        (check.value or 0.0) / 4 < check.limit for check in broken
    )


def _weigh_all(
    architectures: Mapping[Candidate, Architecture],
    budget: Budget,
    folder: Path,
    threads: int,
    base: Recipe | None,
    progress: Callable[[int, int], None] | None,
) -> list[Weighed]:
    files = []
    for done, (candidate, architecture) in enumerate(architectures.items()):
        path = folder / f"{candidate.name}-{architecture.in_chans}to{architecture.num_classes}.onnx"
        files.append(path if path.exists() else export_untrained(architecture, path))
        if progress:
            progress(done + 1, len(architectures))
    costs = weigh_files(files, threads=threads, memory=budget.limits_metric("memory"), progress=progress)
    weighed = []
    for (candidate, architecture), cost in zip(architectures.items(), costs, strict=True):
        checks = tuple(budget.check(cost.values))
        # An int8 candidate trains in float until the end.
        plain = replace(architecture, surgery=())
        recipe = recipe_for(candidate, channels=plain.in_chans, seed=0, base=base)
        price = train_price(plain, recipe) if all(check.status != "violated" for check in checks) else 0.0
        weighed.append(Weighed(candidate, cost.values, cost.latency, checks, threads, price))
    return weighed


def _costs(entry: Weighed) -> dict[str, Any]:
    return {
        "candidate": asdict(entry.candidate),
        "values": entry.values,
        "latency": entry.latency,
        "train_seconds_per_image": entry.train_seconds_per_image,
    }


def _remembered(path: Path, asked: Mapping[str, Any], budget: Budget, threads: int) -> list[Weighed]:
    """Return what a stopped run measured: prices decide how long each candidate trains, so they must not change."""
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if not isinstance(found, dict) or {key: found.get(key) for key in asked} != asked:
        return []
    return [
        Weighed(
            Candidate(**row["candidate"]),
            row["values"],
            row["latency"],
            tuple(budget.check(row["values"])),
            threads,
            row["train_seconds_per_image"],
        )
        for row in found["costs"]
    ]


def train_price(architecture: Architecture, recipe: Recipe) -> float:
    """Return training seconds per image on this machine: the fastest of a few steps, with one thread or with all.

    A step is the recipe's own: its batch, optimizer, clipping and running average of weights.
    """
    threads = torch.get_num_threads()
    prices = []
    for tried in sorted({1, threads}):
        torch.set_num_threads(tried)
        prices.append(_price(architecture, recipe, tried))
    torch.set_num_threads(threads)
    return min(prices)


def _price(architecture: Architecture, recipe: Recipe, threads: int, least_seconds: float = 0.1) -> float:
    batch_size = min(recipe.batch_size, 128)
    plan = Resolved(
        device="cpu",
        precision="fp32",
        channels_last=True,
        compile=False,
        threads=threads,
        micro_batch=batch_size,
        resident=True,
        image_size=architecture.image_size,
        channels=architecture.in_chans,
        shape_policy="fixed",
        mean=architecture.mean,
        std=architecture.std,
    )
    recipe = recipe.model_copy(update={"resolved": plan})
    network = on_device(architecture.build().train(), plan)
    average = Average(network, recipe.ema_decay) if recipe.ema_decay else None
    step = Stepper(State(network, make_optimizer(network, recipe.optim), average), recipe)
    images = architecture.example(batch_size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size) % architecture.num_classes
    times: list[float] = []
    while len(times) < 3 or (sum(times) < least_seconds and len(times) < 20):
        started = time.perf_counter()
        step(images, labels, 1e-4)
        times.append(time.perf_counter() - started)
    return min(times) / batch_size
