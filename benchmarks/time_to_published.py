"""How long two cores train until a net within the paper's parameter limit has the paper's accuracy.

Published (arXiv:2501.15547): 99 % on MNIST and 89 % on Fashion-MNIST with 14,862 parameters, 65 % on CIFAR-10 with
19,622. Each recipe below has a fixed length; nothing is stopped by a look at the test part. Timed: the whole call of
`train.run` on decoded data (a warm pixel cache): reading the index, building, training, validation after each epoch,
saving. Then the test part is scored once. The claim is the median of the seeds' seconds, and only where every seed
reaches the number.

    FLYWEIGHT_DATA=DIR python benchmarks/time_to_published.py [--seeds 3] [--only mnist]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results_file import Measured, write_results

from flyweight.data.sources import load_data
from flyweight.export.counted import counted
from flyweight.studies.trial import answers
from flyweight.train.prepare import prepare
from flyweight.train.recipe import Recipe, validated
from flyweight.train.run import train_and_wait

COMMON: dict[str, Any] = {
    "optim": {"name": "sgd", "lr": 0.15, "weight_decay": 0.0005},
    "schedule": {"name": "onecycle", "warmup_fraction": 0.25},
    "batch_size": 128,
    "ema_decay": 0.99,
    "clip_grad_norm": 5.0,
    "data": {"val_fraction": 0.02},
    "balance": "none",
    "precision": "fp32",
    "channels_last": True,
    "compile": False,
    "threads": 2,
}


@dataclass(frozen=True)
class Row:
    """One number of the paper and our recipe for it."""

    dataset: str
    claim: str
    accuracy: float
    params: int
    recipe: dict[str, Any]


POOL_CNN = {"name": "pool_cnn", "args": {"widths": [16, 37]}}
TINY_7 = {"name": "tiny_cnn_8", "args": {"width": 7}}
TINY_8 = {"name": "tiny_cnn_8"}
FLIP = {"hflip": 0.5}
ROWS = (
    Row("mnist", "mnist_99_seconds", 0.99, 14_862, {"model": POOL_CNN, "epochs": 8, "augment": {"shift": 2}}),
    Row("fashion-mnist", "fashion_mnist_89_seconds", 0.89, 14_862, {"model": TINY_7, "epochs": 4, "augment": FLIP}),
    Row("cifar10", "cifar10_65_seconds", 0.65, 19_622, {"model": TINY_8, "epochs": 6, "augment": FLIP}),
)


def main() -> None:
    """Run every row with every seed, print, and write results/time_to_published.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--only", help="one data set; then nothing is written")
    chosen = options.parse_args()
    if not os.environ.get("FLYWEIGHT_DATA"):
        sys.exit("FLYWEIGHT_DATA names no folder with the data sets")
    rows = [row for row in ROWS if chosen.only in (None, row.dataset)]
    measured, details = {}, {}
    for row in rows:
        runs = [once(row, seed) for seed in range(chosen.seeds)]
        details[row.claim] = runs
        if all(run["accuracy"] >= row.accuracy and run["params"] <= row.params for run in runs):
            measured[row.claim] = Measured.median_and_range([run["seconds"] for run in runs])
        else:
            print(f"{row.claim}: not every seed reaches {100 * row.accuracy:g} % with {row.params:,} parameters")
    if chosen.only is None:
        recipes = {row.claim: {**COMMON, **row.recipe} for row in rows}
        conditions = {"threads": 2, "timed": "train.run on decoded data, validation and saving included"}
        write_results(
            "time_to_published.json",
            measured,
            seeds=range(chosen.seeds),
            conditions=conditions,
            details={"runs": details, "recipes": recipes},
        )


def once(row: Row, seed: int) -> dict[str, Any]:
    """Train one seed and score it; return seconds, accuracy, params."""
    dataset = load_data(f"{row.dataset}:{os.environ['FLYWEIGHT_DATA']}")
    recipe: Recipe = validated({**COMMON, **row.recipe, "seed": seed}, where=row.claim)
    prepared = prepare(dataset, recipe)  # decodes, where no run has yet
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trained = train_and_wait(dataset, recipe, Path(folder) / "run", device="cpu")
        seconds = time.perf_counter() - started
    logits, labels = answers(trained, prepared)
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    cost = counted(trained.architecture)
    print(
        f"{row.dataset:14} seed {seed}  {seconds:5.1f} s  {100 * accuracy:.2f} %  {cost.params:,} parameters",
        flush=True,
    )
    return {"seed": seed, "seconds": seconds, "accuracy": accuracy, "params": cost.params, "macs": cost.macs}


if __name__ == "__main__":
    main()
