"""The networks that benchmarks/ship*.py compress and convert: how each is trained, and what they write together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from results_file import HERE, Measured, targets, write_results

from flyweight.data.dataset import Dataset
from flyweight.data.subset import balanced_subset
from flyweight.train.loop import EpochDone
from flyweight.train.recipe import Recipe, load_recipe
from flyweight.train.run import Finished, run
from flyweight.train.trained import Trained

FILE = "ship.json"


@dataclass(frozen=True)
class Network:
    """A network, and how it is trained where no run of it is given.

    Attributes:
        settings: Changes to the recipe.
        begins: Name of the network whose weights it begins with.
        train, test: How many images of CIFAR-10 it takes, evenly of all classes; None: all.
        given: A run in this repository that is taken instead.
    """

    recipe: str
    settings: tuple[str, ...]
    begins: str | None = None
    train: int | None = None
    test: int | None = None
    given: str | None = None


SMALL = ("data.image_size=32", "data.channels=3", "threads=1")
# As photographs have it: enlarged, since there are no larger images here whose classes these networks know.
LARGE = (
    "data.image_size=224",
    "data.channels=3",
    "threads=1",
    "model.args.min_map=1",
    "batch_size=32",
    "optim.lr=0.005",
)
NETWORKS = {
    # Strides as published: one pixel is left of 32.
    "resnet18": Network("compare", (*SMALL, "model.name=resnet18", "model.args.min_map=1", "epochs=10")),
    "mobilenetv3_small": Network(
        "compare",
        (
            *SMALL, "model.name=mobilenetv3_small_100", "model.args.min_map=2", "epochs=12",
            "model.pretrained=flyweight/mobilenetv3_small_100.tiny_imagenet",
        ),
    ),
    "repvgg_a0": Network("compare", (*SMALL, "model.name=repvgg_a0", "model.args.min_map=1", "epochs=6")),
    "efficientnetv2_s": Network("compare", (*SMALL, "model.name=efficientnetv2_s", "model.args.min_map=1", "epochs=4")),
    "tiny_sep": Network("tiny-cifar10", (), given="bundles/tiny-cifar10/training"),
    "mobilenetv3_small_224": Network(
        "compare", (*LARGE, "model.name=mobilenetv3_small_100", "epochs=8"), "mobilenetv3_small", 5000, 10000
    ),
    "resnet18_224": Network("compare", (*LARGE, "model.name=resnet18", "epochs=4"), "resnet18", 2000, 4000),
}  # fmt: skip


def recipe_of(network: Network) -> Recipe:
    """Return the recipe that trains it."""
    return load_recipe(network.recipe).with_settings(network.settings)


def images_of(network: Network, dataset: Dataset) -> Dataset:
    """Return the images it is trained and tested on."""
    if network.train is None or network.test is None or dataset.parts is None:
        return dataset
    kept = [
        balanced_subset(dataset, np.flatnonzero(dataset.parts == part), count)
        for part, count in (("train", network.train), ("test", network.test))
    ]
    return dataset.take(np.sort(np.concatenate(kept)))


def trained_run(
    name: str, networks: Mapping[str, Network], dataset: Dataset, runs: Path, sources: Mapping[str, Path]
) -> Path:
    """Return the folder of the run of a network: the one that was named, else one that is trained here, or was."""
    network = networks[name]
    if name in sources:
        return sources[name]
    if network.given:
        return HERE.parent / network.given
    out = runs / "sources" / name
    initial = None
    if network.begins:
        initial = Trained.load(trained_run(network.begins, networks, dataset, runs, sources))
    train(images_of(network, dataset), recipe_of(network), out, initial)
    return out


def train(dataset: Dataset, recipe: Recipe, out: Path, initial: Trained | None = None) -> None:
    """Train, printing the epochs; a stopped run goes on, a finished one is read back, one of another recipe refused."""
    for event in run(dataset, recipe, out, device="cpu", initial=initial):
        if isinstance(event, EpochDone):
            print(
                f"{out.name}  epoch {event.row['epoch']:.0f}  val {100 * event.row['val_accuracy']:.2f} %", flush=True
            )
        if isinstance(event, Finished):
            return


def write(measured: Mapping[str, Measured], details: Mapping[str, Any]) -> Path:
    """Write the results file; what it says already of other claims and other details stays.

    The conditions of the file are those of the last to write; every part of the details has its own.
    """
    kept = {
        old["name"]: Measured(old["value"], old["low"], old["high"], old["n"])
        for old in _known("claims", [])
        if old["name"] in targets(FILE)
    }
    return write_results(
        FILE,
        {**kept, **measured},
        seeds=[0],
        conditions={"threads": 1, "batch": 1},
        details={**_known("details", {}), **details},
    )


def _known(key: str, empty: Any) -> Any:
    file = HERE / "results" / FILE
    return json.loads(file.read_text("utf-8")).get(key, empty) if file.exists() else empty
