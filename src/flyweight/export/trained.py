"""A finished run becomes a bundle: calibrated on validation, checked against the network, ready to be continued."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.split import split_from_rule
from flyweight.errors import DataError, ExportError, ModelError
from flyweight.export.bundle import GOLDEN_IMAGES, add_variant, precision_of, write_bundle
from flyweight.export.images import PARITY_IMAGES, spread
from flyweight.export.parity import torch_logits
from flyweight.models.weights import facts_of, folder_of, load_weights
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.calibration import fit_temperature
from flyweight.train.trained import Trained

TRAINING = "training"  # folder in the bundle: the unfolded weights, to continue from


def export(
    trained: Trained,
    dataset: Dataset,
    out: Path,
    *,
    reject_threshold: float | None = None,
    training: bool = True,
) -> Bundle:
    """Return the bundle written at `out`; its confidence is calibrated on the validation images.

    Args:
        dataset: What it was trained on, for validation images; the test part stays sealed.
        reject_threshold: Confidence (0 to 1) below which the runtime answers "rejected"; None: never.
        training: Carry the unfolded weights too, so that training can go on from the bundle.

    Raises:
        DataError: The data set has other classes than the run, or no validation images.
        ExportError: The file disagrees with the network.
        OutputError: `out` cannot be written.
    """
    network = trained.network()
    images, labels = validation_images(trained, dataset)
    temperature = fit_temperature(torch_logits(network, images), labels)
    return write_bundle(
        out,
        network=network,
        architecture=trained.architecture,
        classes=trained.classes,
        preprocess=trained.preprocess,
        temperature=temperature,
        golden_images=images[spread(labels, GOLDEN_IMAGES)],
        parity_images=images[spread(labels, PARITY_IMAGES)],
        split_rule=trained.split,
        provenance=_provenance(trained),
        recipe_yaml=yaml.safe_dump(trained.recipe.model_dump(mode="json", exclude_none=True), sort_keys=False),
        reject_threshold=reject_threshold,
        extras=_training_files(trained) if training else {},
    )


def _training_files(trained: Trained) -> dict[str, bytes]:
    """Return what `Trained.load` needs, by path inside the bundle."""
    with tempfile.TemporaryDirectory() as scratch:
        trained.save(Path(scratch))
        return {f"{TRAINING}/{path.name}": path.read_bytes() for path in sorted(Path(scratch).iterdir())}


def export_variant(bundle: Bundle, trained: Trained, dataset: Dataset, out: Path, *, default: bool = False) -> Bundle:
    """Return the bundle written at `out` with one more variant: a run of the same data in another precision.

    Args:
        default: Make it the variant that is used when none is named.

    Raises:
        DataError: The data set has other classes than the run, or no validation images.
        ExportError: It is not the bundle's preprocessing or precision is there already, or the file disagrees.
        OutputError: `out` cannot be written.
    """
    name = precision_of(trained.architecture)
    if name in bundle.variants:
        raise ExportError(
            f"the bundle {bundle.name!r} has a variant {name!r} already",
            do="give a run of the other precision (train one with: flyweight train DATA --recipe qat --from RUN)",
        )
    images, labels = validation_images(trained, dataset)
    return add_variant(
        bundle,
        out,
        network=trained.network(),
        architecture=trained.architecture,
        parity_images=images[spread(labels, PARITY_IMAGES)],
        provenance=_provenance(trained),
        default=default,
    )


def validation_images(trained: Trained, dataset: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the validation images (N, C, S, S) uint8, as the runtime would see them, and their labels (N,)."""
    if dataset.classes != trained.classes:
        raise _other_classes(dataset, trained)
    indices = split_from_rule(dataset, trained.split).val
    store = build_fixed(dataset, indices, trained.preprocess)
    images = np.ascontiguousarray(np.asarray(store.pixels).transpose(0, 3, 1, 2))
    return images, dataset.labels[indices]


def _other_classes(dataset: Dataset, trained: Trained) -> DataError:
    missing = [name for name in trained.classes if name not in dataset.classes]
    added = [name for name in dataset.classes if name not in trained.classes]
    differ = f"missing {missing[:5]}, added {added[:5]}" if missing or added else "the same names in another order"
    return DataError(
        f"{str(dataset.root)!r} has {len(dataset.classes)} classes, the run {len(trained.classes)}: {differ}",
        do="give the data set that the run was trained on, or go on from it with: flyweight fit --from",
    )


def _provenance(trained: Trained) -> dict[str, Any]:
    return {
        "data": trained.data,
        "recipe": trained.recipe.name,
        "epochs": len(trained.history),
        "seed": trained.recipe.seed,
        "validation": trained.metrics,
        "environment": trained.environment,
        "pretrained": begun_with(trained.recipe.model.pretrained),
    }


def begun_with(name: str | None) -> dict[str, Any] | None:
    """Return whose weights training began with, and on what terms; None where the recipe names none."""
    if name is None:
        return None
    try:
        found = load_weights(name)
    except ModelError:
        lost = "not known: these weights were not on the machine that exported the bundle"
        return {"name": name, "licence": lost, "source": lost}
    facts = {"licence": found.licence, "source": found.source, "data": found.data}
    return {"name": found.name, **facts, "sha256": facts_of(folder_of(name))["sha256"]}
