"""What an image unlike every class gets: the reject option of shipped bundles, on data sets of other things.

    FLYWEIGHT_DATA=DIR python benchmarks/ship_reject.py

Thresholds are chosen on validation images; their cost is counted on the official test parts (opened once a bundle, and
logged), and of other data sets on up to 10,000 of their test images. Tiny ImageNet is the hard case for CIFAR-10: of
its 200 classes some are cats, dogs, frogs, cars and ships, which are no images unlike every class; most are not.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from results_file import HERE
from ship_networks import write

from flyweight.data.sources import load_data
from flyweight.data.split import open_test
from flyweight.measure.reject import pictures, rejection
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.environment import environment

FOLDERS = {
    "mnist": "mnist:{}/MNIST",
    "fashion-mnist": "fashion-mnist:{}/fashion-mnist",
    "cifar10": "cifar10:{}",
    "tiny-imagenet": "tiny-imagenet:{}/tiny-imagenet-200",
}
BUNDLES = {  # bundle: (what it knows, what it does not)
    "tiny-mnist": ("mnist", ("fashion-mnist", "cifar10")),
    "tiny-fashion-mnist": ("fashion-mnist", ("mnist", "cifar10")),
    "tiny-cifar10": ("cifar10", ("mnist", "fashion-mnist", "tiny-imagenet")),
    "cifar10-1mb": ("cifar10", ("mnist", "fashion-mnist", "tiny-imagenet")),
}


def main() -> None:
    """Measure, and write benchmarks/results/ship.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=Path, default=Path("runs/ship"), help="for the log of opened test parts")
    chosen = options.parse_args()
    if not os.environ.get("FLYWEIGHT_DATA"):
        sys.exit("FLYWEIGHT_DATA names no folder with the data sets")
    sources = {name: text.format(os.environ["FLYWEIGHT_DATA"]) for name, text in FOLDERS.items()}
    table: dict[str, Any] = {}
    for name, (known, others) in BUNDLES.items():
        bundle = Bundle.open(HERE.parent / "bundles" / name)
        open_test(chosen.runs / "reject" / name / "test-openings.jsonl", why=f"benchmarks/ship_reject.py: {name}")
        found = rejection(bundle, load_data(sources[known]), [pictures(sources[one]) for one in others], part="test")
        table[name] = {**found.model_dump(mode="json"), "conditions": environment()}
        for one in found.thresholds:
            print(f"{name}  below {one.confidence:.3f}  answered {one.answered.value:.3f}")
        for other in found.unlike:
            print(f"{name}  {other.name}: auroc {other.auroc:.4f}, answered {[one.value for one in other.answered]}")
    print(write({}, {"reject": table}))


if __name__ == "__main__":
    main()
