"""Does it pay to keep freed memory (`train.heap`)? Training steps with and without, side by side.

    python benchmarks/heap.py [--processes 5]

Each process makes the recipe's own steps on one thread and keeps the median after a warm-up; plain and keeping ones
alternate. Prints each pair, and median and range of the ratio; docs/decisions/0007-keep-freed-memory.md has ours.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from results_file import Measured

NETWORKS = {"mobilenetv3_small_100": (64, 128), "resnet18": (32, 64), "tiny_resnet8_16": (32, 128)}  # px, batch
WARM_UP, STEPS = 3, 8


def main() -> None:
    """Measure every network both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5, help="of each way and network")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "WAY"), help="be one of the processes")
    chosen = parser.parse_args()
    if chosen.one:
        print(step_seconds(*chosen.one))
        return
    for name in NETWORKS:
        found = ratio(name, chosen.processes)
        print(f"{name:24} ratio {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], {found.n} pairs")


def ratio(name: str, processes: int) -> Measured:
    """Return seconds of a step with kept memory over those without: median of the pairs, lowest and highest."""
    ratios = []
    for _ in range(processes):
        plain, keep = (float(subprocess.check_output([sys.executable, __file__, "--one", name, way]))
                       for way in ("plain", "keep"))  # fmt: skip
        ratios.append(keep / plain)
        print(f"{name:24} {1000 * plain:7.1f} ms, kept {1000 * keep:7.1f} ms, ratio {keep / plain:.3f}", flush=True)
    return Measured.median_and_range(ratios)


def step_seconds(name: str, way: str) -> float:
    """Return the median seconds of a training step in this process."""
    import torch

    from flyweight.models.architecture import Architecture
    from flyweight.train.heap import keep_freed_memory
    from flyweight.train.loop import State, Stepper
    from flyweight.train.optim import make_optimizer
    from flyweight.train.probe import on_device
    from flyweight.train.recipe import Recipe, Resolved

    if way == "keep":
        assert keep_freed_memory()
    torch.set_num_threads(1)
    size, batch = NETWORKS[name]
    architecture = Architecture(name, 10, 3, size)
    plan = Resolved(
        device="cpu", precision="fp32", channels_last=True, compile=False, threads=1, micro_batch=batch, resident=True,
        image_size=size, channels=3, shape_policy="fixed", mean=architecture.mean, std=architecture.std,
    )  # fmt: skip
    recipe = Recipe(resolved=plan, batch_size=batch)
    network = on_device(architecture.build().train(), plan)
    step = Stepper(State(network, make_optimizer(network, recipe.optim)), recipe)
    images = architecture.example(batch).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    times = []
    for _ in range(WARM_UP + STEPS):
        started = time.perf_counter()
        step(images, labels, 1e-3)
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])


if __name__ == "__main__":
    main()
