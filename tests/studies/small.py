"""A small real MNIST-shaped data set in IDX files, and finished trials with scores of one's choosing."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flyweight.data.sources import load_data
from flyweight.data.sources.cifar import CIFAR10
from flyweight.studies.compared import comparison
from flyweight.studies.study import Study, Trial, trials
from flyweight.studies.trial import CORRECT, RESULT, Place
from flyweight.train.recipe import Recipe


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


def made_up(folder: Path, scores: dict[str, list[float]]) -> tuple[Study, Place]:
    """Write finished trials of three seeds whose images are right with the given chances."""
    study = comparison(["sample"], list(scores) if len(scores) > 1 else [*scores, "pool_cnn"], Recipe(), seeds=3)
    place, rng = Place(folder, folder), np.random.default_rng(0)
    for trial in trials(study, study.scales["own"]):
        if trial.arm not in scores:
            continue
        correct = rng.random(2000) < scores[trial.arm][trial.seed]
        place.of(trial).mkdir(parents=True)
        np.save(place.of(trial) / CORRECT, correct)
        result = {
            "dataset": "sample", "arm": trial.arm, "seed": trial.seed, "accuracy": float(correct.mean()), "n": 2000,
            "top5": 0.9, "balanced": float(correct.mean()), "ece": 0.1, "classes": 10, "val_accuracy": 0.9,
            "params": 10, "macs": 20, "macs_by_torch": 20, "size_bytes": 100, "pretrained": None, "tuning": [],
            "image_passes": 7, "int8_bytes": None, "train_macs": 1e9, "train_seconds": 1.0, "epochs": 1,
            "recalls": [float(correct.mean())] * 9 + [0.25], "train_images": 1000, "class_names": [*"abcdefghij"],
        }  # fmt: skip
        (place.of(trial) / RESULT).write_text(json.dumps(result))
    return study, place


def small_cifar10(folder: Path, train: int = 1000, test: int = 200) -> None:
    """Write images of the embedded sample, enlarged and in three channels, as CIFAR-10's pickle files."""
    sample = load_data("sample")
    target = folder / "cifar-10-batches-py"
    target.mkdir(parents=True)

    def batch(name: str, indices: range) -> None:
        images = np.stack([np.asarray(sample.images.read(index)) for index in indices])
        images = np.pad(images[..., :1], ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=3)
        content = {
            b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
            b"labels": sample.labels[indices.start : indices.stop].tolist(),
        }
        (target / name).write_bytes(pickle.dumps(content, protocol=2))

    for number in range(5):
        batch(f"data_batch_{number + 1}", range(number * train // 5, (number + 1) * train // 5))
    batch("test_batch", range(6000, 6000 + test))
    names = [name.encode() for name in CIFAR10]
    (target / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))


def small_tiny_imagenet(folder: Path, classes: int = 4, train: int = 50, test: int = 6) -> None:
    """Write images of the embedded sample, enlarged to 64 px colour, in Tiny ImageNet's layout."""
    sample, root = load_data("sample"), folder / "tiny-imagenet-200"
    held = root / "val" / "images"
    held.mkdir(parents=True)
    lines = []
    for label in range(classes):
        found = np.flatnonzero(sample.labels == label)[: train + test]
        pictures = [Image.fromarray(np.asarray(sample.images.read(int(place)))[..., 0]) for place in found]
        pictures = [picture.resize((64, 64)).convert("RGB") for picture in pictures]
        images = root / "train" / f"n{label}" / "images"
        images.mkdir(parents=True)
        for number, picture in enumerate(pictures[:train]):
            picture.save(images / f"n{label}_{number}.JPEG", quality=95)
        for number, picture in enumerate(pictures[train:]):
            picture.save(held / f"val_{label}_{number}.JPEG", quality=95)
            lines.append(f"val_{label}_{number}.JPEG\tn{label}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
