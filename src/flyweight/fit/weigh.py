"""Weigh every candidate before training it: export the untrained network, time it, price its training.

For another device its own times count, which a kit brought back; this machine's clock is then not asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flyweight.errors import DeviceError
from flyweight.export.onnx import export_untrained
from flyweight.files import write_json
from flyweight.fit.candidates import Candidate, recipe_for
from flyweight.measure.budget import MEASURED, Budget, Check
from flyweight.measure.device import Device, host
from flyweight.measure.result import UntrainedNet
from flyweight.measure.weigh import FileCost, weigh_files
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

    @property
    def verified(self) -> bool:
        """True where every limit could be checked."""
        return all(check.status != "unverified" for check in self.checks)


def weigh(
    candidates: Sequence[Candidate],
    budget: Budget,
    folder: Path,
    *,
    channels: int,
    num_classes: int,
    threads: int,
    base: Recipe | None = None,
    device: Device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Weighed]:
    """Return the cost of every candidate; latencies are taken interleaved, in one run.

    Args:
        base: What candidates train by, as `recipe_for` takes it.
        device: That the budget is for; this machine without. What another one did not time stays unverified.

    A candidate whose file is up to four times too large, and breaks no other limit, comes a second time, as int8.

    Raises:
        ModelError, ExportError: A candidate cannot be built or exported.
        OutputError: The folder cannot be written.
    """
    common = {"num_classes": num_classes, "channels": channels, "threads": threads, "budget": budget.text}
    asked = {"candidates": [candidate.name for candidate in candidates], **common}
    device = device or host()
    if not device.is_host:
        asked |= {"device": device.name, "results": [result.sha256 for result in device.results]}
    known = _remembered(folder / WEIGHED, asked, budget, threads)
    if known:
        return known
    architectures = {c: architecture_of(c, channels, num_classes) for c in candidates}
    weighed = _weigh_all(architectures, budget, folder, threads, base, device, progress)
    smaller = {
        (int8 := replace(entry.candidate, precision="int8")): architecture_of(int8, channels, num_classes)
        for entry in weighed
        if _too_large_in_float_alone(entry)
    }
    if smaller:
        weighed += _weigh_all(smaller, budget, folder, threads, base, device, progress)
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
    device: Device,
    progress: Callable[[int, int], None] | None,
) -> list[Weighed]:
    files = []
    for done, (candidate, architecture) in enumerate(architectures.items()):
        files.append(untrained_file(candidate, architecture, folder))
        if progress:
            progress(done + 1, len(architectures))
    memory = device.is_host and budget.limits_metric("memory")
    costs = weigh_files(files, threads=threads, timed=device.is_host, memory=memory, progress=progress)
    if not device.is_host:
        pairs = zip(architectures.items(), costs, strict=True)
        costs = [_timed_there(device, candidate, net_of(a), cost, threads) for (candidate, a), cost in pairs]
    weighed = []
    for (candidate, architecture), cost in zip(architectures.items(), costs, strict=True):
        checks = tuple(budget.check(cost.values, measured_on=device.name))
        # An int8 candidate trains in float until the end.
        plain = replace(architecture, surgery=())
        recipe = recipe_for(candidate, channels=plain.in_chans, seed=0, base=base)
        price = train_price(plain, recipe) if all(check.status != "violated" for check in checks) else 0.0
        weighed.append(Weighed(candidate, cost.values, cost.latency, checks, threads, price))
    return weighed


def architecture_of(candidate: Candidate, channels: int, num_classes: int) -> Architecture:
    """Return the untrained network of a candidate, as it would ship."""
    plain = Architecture(candidate.model, num_classes, channels, candidate.image_size)
    return plain.quantize() if candidate.precision == "int8" else plain


def untrained_file(candidate: Candidate, architecture: Architecture, folder: Path) -> Path:
    """Return the candidate's file in `folder`, exported where it is not there. Raises ModelError, ExportError."""
    path = folder / f"{candidate.name}-{architecture.in_chans}to{architecture.num_classes}.onnx"
    return path if path.exists() else export_untrained(architecture, path)


def net_of(architecture: Architecture) -> UntrainedNet:
    """Return what a device knows the network by."""
    a = architecture
    return UntrainedNet(model=a.name, image_size=a.image_size, channels=a.in_chans, num_classes=a.num_classes)


def refuse_untimed(
    candidates: Sequence[Candidate], budget: Budget, device: Device, *, channels: int, num_classes: int, threads: int
) -> None:
    """Refuse to search for a device that sent results, and timed none of the candidates.

    Raises:
        DeviceError: With the kit that would time them.
    """
    limits = [limit.text for limit in budget.limits if limit.metric in MEASURED]
    nets = [(net_of(architecture_of(c, channels, num_classes)), c.precision) for c in candidates]
    if not limits or device.is_host or not device.results or any(device.timed(*net, threads) for net in nets):
        return
    sizes = " ".join(f"--sizes {size}" for size in dict.fromkeys(c.image_size for c in candidates))
    raise DeviceError(
        f"the device {device.name!r} timed none of the {len(candidates)} candidates ({channels} channel(s), "
        f"{num_classes} classes, {threads} thread(s)), so {', '.join(limits)} cannot be checked",
        do=f"flyweight kit BUNDLE --candidates {sizes} --threads {threads} --name {device.name} with a bundle of these "
        "classes, run it there, and flyweight device add result.json",
        more="docs/devices.md",
    )


def _timed_there(device: Device, candidate: Candidate, net: UntrainedNet, cost: FileCost, threads: int) -> FileCost:
    """Return the counted cost with the device's own times; without them where it did not time this very graph."""
    row = device.timed(net, candidate.precision, threads)
    if row is None or (row.params, row.macs) != (cost.values["params"], cost.values["macs"]):
        return FileCost({**cost.values, **dict.fromkeys(sorted(MEASURED))}, {})
    latency = row.latency()
    return FileCost({**cost.values, **row.budget_values()}, latency.as_dict() if latency else {})


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
            tuple(budget.check(row["values"], measured_on=budget.device)),
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
