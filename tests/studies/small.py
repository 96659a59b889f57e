"""A small real MNIST-shaped data set in IDX files, and finished trials with scores of one's choosing."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.data.sources import load_data
from flyweight.studies.study import Trial
from flyweight.studies.trial import CORRECT, RESULT, Place


def small_mnist(folder: Path, train: int = 1500, test: int = 300) -> None:
    """Write images of the embedded sample as MNIST's four files."""
    sample = load_data("sample")
    images = np.stack(
        [np.asarray(sample.images.read(index))[..., 0] for index in (*range(train), *range(6000, 6000 + test))]
    )
    labels = np.concatenate([sample.labels[:train], sample.labels[6000 : 6000 + test]]).astype(np.uint8)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, part in (("train", slice(0, train)), ("t10k", slice(train, None))):
        chosen = images[part]
        head = struct.pack(">IIII", 2051, len(chosen), 28, 28)
        (raw / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + chosen.tobytes()))
        head = struct.pack(">II", 2049, len(chosen))
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels[part].tobytes()))


def place_with(folder: Path, scores: dict[str, np.ndarray[Any, Any]]) -> tuple[Place, list[Trial]]:
    """Write finished trials: `scores` (R, N) bool of each arm."""
    place, order = Place(folder, folder), []
    for arm, runs in scores.items():
        for seed, correct in enumerate(runs):
            trial = Trial(seed, "mnist", arm)
            place.of(trial).mkdir(parents=True)
            np.save(place.of(trial) / CORRECT, correct)
            result = {
                "dataset": "mnist", "arm": arm, "seed": seed, "accuracy": float(correct.mean()), "n": len(correct),
                "val_accuracy": 0.9, "params": 14862, "macs": 568240, "train_macs": 1e9,
                "train_seconds": 1.0, "epochs": 1,
            }  # fmt: skip
            (place.of(trial) / RESULT).write_text(json.dumps(result))
            order.append(trial)
    return place, order
