"""Which images train, validate and test, decided by content, so that copies stay together and folders can grow."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset
from flyweight.errors import DataError
from flyweight.files import output_error


@dataclass(frozen=True)
class Split:
    """Three parts of a data set.

    Attributes:
        train, val, test: Indices (N,) int64, ascending.
        rule: What decides them, for `split_from_rule`.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    rule: dict[str, Any]


def split(
    dataset: Dataset,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.15,
    seed: int = 0,
    keep_official: bool = True,
) -> Split:
    """Divide a data set by a hash of each image's content, or of its group.

    Official parts are kept. Of the rest, `test_fraction` is sealed where there is no official test part and
    `val_fraction` validates where there is no official validation part.

    Raises:
        DataError: A class has no image in a part.
    """
    rule = {
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "keep_official": keep_official,
        "grouped": dataset.groups is not None,
    }
    return split_from_rule(dataset, rule)


def split_from_rule(dataset: Dataset, rule: dict[str, Any]) -> Split:
    """Divide a data set by a rule that `split` (or a bundle) recorded.

    Raises:
        DataError: The rule cannot be used, or a class has no image in a part.
    """
    try:
        val_fraction, test_fraction = float(rule["val_fraction"]), float(rule["test_fraction"])
        seed, official = int(rule["seed"]), bool(rule["keep_official"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the split rule {rule!r} lacks {error}", do="use the rule that flyweight wrote") from error
    parts = _official(dataset) if official else np.full(len(dataset), "", dtype="<U5")
    chance = _chance(dataset, seed)
    has_test, has_val = bool((parts == "test").any()), bool((parts == "val").any())
    open_ones = parts == ""
    if not has_test:
        parts[open_ones & (chance < test_fraction)] = "test"
    train = (parts == "") | (parts == "train")
    if not has_val:
        cut = val_fraction if has_test else test_fraction + (1.0 - test_fraction) * val_fraction
        parts[train & (chance < cut) & (parts != "test")] = "val"
    parts[(parts == "") | (parts == "train")] = "train"
    train_part, val_part, test_part = (np.flatnonzero(parts == name) for name in ("train", "val", "test"))
    found = Split(train_part, val_part, test_part, dict(rule))
    _check(dataset, found)
    return found


def open_test(log: Path, *, why: str) -> None:
    """Append a line to the log of openings of the test part, on the disk before this returns."""
    line = json.dumps({"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "why": why})
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise output_error(log, error) from error


def _official(dataset: Dataset) -> NDArray[np.str_]:
    if dataset.parts is None:
        return np.full(len(dataset), "", dtype="<U5")
    return dataset.parts.astype("<U5").copy()


def _chance(dataset: Dataset, seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) per image, the same for the same content (or group) and seed."""
    if dataset.groups is not None:
        import hashlib

        names = {name: hashlib.blake2b(name.encode(), digest_size=8).digest() for name in set(dataset.groups)}
        words = np.frombuffer(b"".join(names[name] for name in dataset.groups), dtype=">u8")
    else:
        digits = dataset.hashes().astype("S16")
        words = np.frombuffer(bytes.fromhex(b"".join(digits.tolist()).decode()), dtype=">u8")
    return _scramble(words.astype(np.uint64), seed) / 2.0**64


def _scramble(words: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Mix a seed into 64-bit words: the finaliser of splitmix64, which changes every bit by every other."""
    mixed = words + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64)


def _check(dataset: Dataset, found: Split) -> None:
    for name, indices in (("train", found.train), ("val", found.val), ("test", found.test)):
        present = np.bincount(dataset.labels[indices], minlength=len(dataset.classes)) if len(indices) else None
        missing = [
            class_name for label, class_name in enumerate(dataset.classes) if present is None or present[label] == 0
        ]
        if missing and not (name == "test" and present is not None):
            counts = dataset.counts()
            shown = ", ".join(f"{class_name!r} ({counts[class_name]} images in all)" for class_name in missing[:5])
            raise DataError(
                f"{dataset.name}: the {name} part has no image of {len(missing)} class"
                f"{'es' * (len(missing) > 1)}: {shown}",
                do=f"add images of {missing[0]!r}, or take another data.split_seed or a larger part: "
                f"--set data.{'test' if name == 'test' else 'val'}_fraction=0.3",
            )
