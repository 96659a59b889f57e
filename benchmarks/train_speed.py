"""How fast a small network trains through our data path, against its ceiling and against the usual pipeline.

Three ways of feeding the same network, optimizer step, layout, precision and threads, timed in turns:
    ours     flyweight.train.loop.train over flyweight.data.batches.Batches
    ceiling  the same optimizer step on one batch that stays in memory
    loader   PIL + torchvision.transforms (v1, the faster) + DataLoader, best of 0, 1 and 2 workers
At 28 px the loader's images are arrays in memory, as torchvision's MNIST holds them; at 64 px they are JPEG files, as
Tiny ImageNet comes. Each repetition times every way once; a claim is the median of the ratios within repetitions.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from results_file import Measured, write_results
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from flyweight.data.batches import Batches
from flyweight.data.cache import FixedStore
from flyweight.data.policy import AugmentPolicy, RandAugmentPolicy
from flyweight.models.architecture import Architecture, Normalize
from flyweight.train.loop import State, StepDone, Stepper, train
from flyweight.train.optim import make_optimizer
from flyweight.train.recipe import OptimPart, Recipe, Resolved

SEED = 0
NUM_CLASSES = 10
Feed = Callable[[int], None]  # makes that many training steps


@dataclass(frozen=True)
class Case:
    """One comparison: a network at one size, under one policy."""

    name: str
    build: Callable[[], nn.Module]
    image_size: int
    channels: int
    batch_size: int
    count: int
    policy: AugmentPolicy
    from_files: bool


def tiny_net() -> nn.Module:
    """Return the three-layer CNN for 28 x 28 x 1, about 11k parameters."""
    layers: list[nn.Module] = [Normalize((0.5,), (0.5,))]
    for before, after in ((1, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, NUM_CLASSES))


def mobilenet() -> nn.Module:
    """Return MobileNetV3-Small at 64 px with the strides of its paper, not with a stem for small inputs."""
    return Architecture("mobilenetv3_small_100", NUM_CLASSES, 3, 64, args={"min_map": 1}).build()


CASES = (
    Case("tiny_28px_crop_flip", tiny_net, 28, 1, 256, 60_000, AugmentPolicy(shift=2, hflip=0.5), False),
    Case(
        "tiny_28px_randaugment",
        tiny_net,
        28,
        1,
        256,
        60_000,
        AugmentPolicy(shift=2, hflip=0.5, randaugment=RandAugmentPolicy()),
        False,
    ),
    Case("mobilenetv3_small_64px", mobilenet, 64, 3, 128, 10_000, AugmentPolicy(shift=4, hflip=0.5), True),
)


def main() -> None:
    """Measure every claim of train_speed.json and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each timing")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=None, help="another folder than benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured: dict[str, Measured] = {}
    details: dict[str, Any] = {}
    for case in CASES:
        rates = measure(case, options.repetitions, options.seconds)
        best = max((way for way in rates if way.startswith("loader")), key=lambda way: statistics.median(rates[way]))
        measured[f"{case.name}_vs_dataloader"] = ratio(rates["ours"], rates[best])
        details[case.name] = {"images_per_second": rates, "best_loader": best, "params": params(case)}
    crop_flip = details["tiny_28px_crop_flip"]["images_per_second"]
    measured["tiny_28px_vs_in_memory_ceiling"] = ratio(crop_flip["ours"], crop_flip["ceiling"])
    measured["cli_help_seconds"] = cli_help(max(options.repetitions, 11))
    conditions = {
        "threads": options.threads,
        "precision": "fp32",
        "layout": "channels_last",
        "seconds_per_timing": options.seconds,
        "loader": "torchvision.transforms v1: crop with padding, flip, [RandAugment], ToTensor, Normalize; "
        "arrays in memory at 28 px, JPEG files at 64 px; workers: best of 0, 1, 2",
    }
    path = write_results(
        "train_speed.json", measured, seeds=[SEED], conditions=conditions, details=details, folder=options.out
    )
    for name, result in measured.items():
        print(f"{name:<42} {result.value:.3g} [{result.low:.3g}, {result.high:.3g}], n = {result.n}")
    print(path)


def measure(case: Case, repetitions: int, seconds: float) -> dict[str, list[float]]:
    """Return images per second of every way, one per repetition, the ways in turns."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pixels, labels = pictures(case)
        ways: dict[str, Feed] = {"ours": ours(case, pixels, labels), "ceiling": ceiling(case, pixels, labels)}
        dataset = loader_dataset(case, pixels, labels, Path(folder))
        ways |= {f"loader with {workers} workers": loader(case, dataset, workers) for workers in (0, 1, 2)}
        for repetition in range(repetitions):
            order = list(ways)[repetition % len(ways) :] + list(ways)[: repetition % len(ways)]
            for way in order:
                rates.setdefault(way, []).append(images_per_second(ways[way], case.batch_size, seconds))
                print(f"{case.name} {way}: {rates[way][-1]:.0f} images/s", file=sys.stderr, flush=True)
        del ways, dataset
    return rates


def images_per_second(feed: Feed, batch_size: int, seconds: float) -> float:
    """Return the rate over at least `seconds`, after the batches that lay ready in a queue are used up."""
    feed(8)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        feed(4)
        steps += 4
    return steps * batch_size / (time.perf_counter() - started)


def ratio(ours_rates: list[float], other_rates: list[float]) -> Measured:
    """Return the median and range of the ratios within repetitions."""
    return Measured.median_and_range([mine / other for mine, other in zip(ours_rates, other_rates, strict=True)])


def pictures(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return smooth random pictures (N, H, W, C) uint8 with noise, and labels (N,)."""
    rng = np.random.default_rng(SEED)
    coarse = rng.integers(0, 256, (512, 6, 6, case.channels), dtype=np.uint8)
    size = (case.image_size, case.image_size)
    smooth = [np.asarray(Image.fromarray(image.squeeze()).resize(size, Image.Resampling.BICUBIC)) for image in coarse]
    chosen = np.stack(smooth).reshape(512, *size, case.channels)[rng.integers(0, 512, case.count)]
    noise = rng.integers(0, 16, chosen.shape, dtype=np.uint8)
    return np.clip(chosen, 0, 240) + noise, rng.integers(0, NUM_CLASSES, case.count)


def recipe_of(case: Case) -> Recipe:
    """Return the recipe all ways train by, as it stands after probing."""
    plan = Resolved(
        device="cpu",
        precision="fp32",
        channels_last=True,
        compile=False,
        threads=torch.get_num_threads(),
        micro_batch=case.batch_size,
        resident=True,
        image_size=case.image_size,
        channels=case.channels,
        shape_policy="fixed",
        mean=(0.5,) * case.channels,
        std=(0.5,) * case.channels,
    )
    optim = OptimPart(name="sgd", lr=0.01)
    return Recipe(
        augment=case.policy, optim=optim, epochs=1_000_000, batch_size=case.batch_size, seed=SEED, resolved=plan
    )


def fresh_state(case: Case) -> tuple[State, Recipe]:
    """Return the network and optimizer that every way starts from."""
    torch.manual_seed(SEED)
    recipe = recipe_of(case)
    network = case.build().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State(network, make_optimizer(network, recipe.optim)), recipe


def ours(case: Case, pixels: np.ndarray, labels: np.ndarray) -> Feed:
    """Return steps of the real loop over the real batches; an epoch's validation (one batch) is in the time."""
    state, recipe = fresh_state(case)
    common: dict[str, Any] = {"image_size": case.image_size, "num_classes": NUM_CLASSES, "batch_size": case.batch_size}
    training = Batches(FixedStore(pixels), labels, policy=case.policy, seed=SEED, resident=True, **common)
    validation = Batches(FixedStore(pixels[:64]), labels[:64], policy=None, train=False, **common)
    events = (event for event in train(state, recipe, training, validation) if isinstance(event, StepDone))

    def feed(steps: int) -> None:
        for _ in itertools.islice(events, steps):
            pass

    return feed


def ceiling(case: Case, pixels: np.ndarray, labels: np.ndarray) -> Feed:
    """Return steps on one batch that never changes."""
    state, recipe = fresh_state(case)
    take_step = Stepper(state, recipe)
    images = torch.from_numpy(pixels[: case.batch_size].copy()).permute(0, 3, 1, 2)
    targets = torch.from_numpy(labels[: case.batch_size].copy())

    def feed(steps: int) -> None:
        for _ in range(steps):
            take_step(images, targets, 0.01)

    return feed


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Arrays in memory through PIL, as torchvision.datasets.MNIST does it."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels, self.labels, self.transform = pixels.squeeze(3), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def loader_dataset(case: Case, pixels: np.ndarray, labels: np.ndarray, folder: Path) -> Any:
    """Return the data set of the usual pipeline, with the case's augmentations."""
    policy, half = case.policy, (0.5,) * case.channels
    steps: list[Any] = [transforms.RandomCrop(case.image_size, padding=policy.shift)]
    steps.append(transforms.RandomHorizontalFlip(policy.hflip))
    if policy.randaugment is not None:
        steps.append(transforms.RandAugment(policy.randaugment.ops, policy.randaugment.magnitude))
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(half, half)])
    if not case.from_files:
        return Pictures(pixels, labels, transform)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / str(label) / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
    return ImageFolder(str(folder), transform)


def loader(case: Case, dataset: Any, workers: int) -> Feed:
    """Return steps of a plain loop over a DataLoader; the network lacks our first layer, Normalize did its work."""
    state, recipe = fresh_state(case)
    assert isinstance(state.network, nn.Sequential)
    state.network[0] = nn.Identity()
    take_step = Stepper(state, recipe)
    batches = endless(
        torch.utils.data.DataLoader(
            dataset,
            case.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(SEED),
        )
    )

    def feed(steps: int) -> None:
        for images, targets in itertools.islice(batches, steps):
            take_step(images.contiguous(memory_format=torch.channels_last), targets, 0.01)

    return feed


def endless(batches: torch.utils.data.DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of epoch after epoch."""
    while True:
        yield from batches


def params(case: Case) -> int:
    """Return the number of parameters of the case's network."""
    return sum(parameter.numel() for parameter in case.build().parameters())


def cli_help(runs: int) -> Measured:
    """Return the wall time in seconds of `flyweight --help` in fresh processes, files already in the page cache."""
    command = [sys.executable, "-m", "flyweight", "--help"]
    subprocess.run(command, check=True, capture_output=True)
    samples = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        samples.append(time.perf_counter() - started)
    return Measured.median_and_range(samples)


if __name__ == "__main__":
    main()
