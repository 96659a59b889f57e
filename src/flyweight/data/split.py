"""Which images train, validate and test, decided by content, so that copies stay together and folders can grow."""

from __future__ import annotations

import datetime
import hashlib
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
    fold: int = 0,
    keep_official: bool = True,
) -> Split:
    """Divide a data set by a hash of each image's content, or of its group.

    Official val and test parts are kept. Of the rest (an official train part, and what the source leaves open),
    `test_fraction` is sealed where there is no official test part and `val_fraction` of what remains validates where
    there is no official validation part. `fold` says which of the 1 / `val_fraction` equal slices validates: over all
    of them every image does so once (K-fold cross-validation).

    Raises:
        DataError: A class has no image in a part, or there is no such fold.
    """
    rule = {
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "fold": fold,
        "keep_official": keep_official,
        "grouped": dataset.groups is not None,
        "group": dataset.group_by,
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
        fold = int(rule.get("fold", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the split rule {rule!r} lacks {error}", do="use the rule that flyweight wrote") from error
    if not 0 <= fold < max(1, round(1 / val_fraction)):
        raise DataError(
            f"there is no fold {fold} of {round(1 / val_fraction)} (val_fraction is {val_fraction:g})",
            do=f"choose a fold from 0 to {round(1 / val_fraction) - 1}, or a smaller data.val_fraction",
        )
    parts = _official(dataset) if official else np.full(len(dataset), "", dtype="<U5")
    chance = _chance(dataset, seed)
    own = {name for name in ("val", "test") if (parts == name).any()}
    rest = (parts == "") | (parts == "train")
    parts[rest] = "train"
    if "val" not in own:
        sealed = 0.0 if "test" in own else test_fraction
        low, high = (sealed + (1.0 - sealed) * val_fraction * place for place in (fold, fold + 1))
        parts[rest & (low <= chance) & (chance < high)] = "val"
    if "test" not in own:
        parts[rest & (chance < test_fraction)] = "test"
    if "val" not in own:
        _fill_validation(dataset, parts, chance)
    train_part, val_part, test_part = (np.flatnonzero(parts == name) for name in ("train", "val", "test"))
    found = Split(train_part, val_part, test_part, dict(rule))
    _check(dataset, found, own)
    return found


def _fill_validation(dataset: Dataset, parts: NDArray[np.str_], chance: NDArray[np.float64]) -> None:
    """Give each class that chance left without validation its training image nearest to it, in place.

    Few images make that likely: one in twelve classes of 24. Copies and groups share a chance and move together; as a
    class grows, such an image may move back to training, never to or from the sealed test part.
    """
    for label in range(len(dataset.classes)):
        mine = dataset.labels == label
        values = np.unique(chance[mine & (parts == "train")])
        if not (mine & (parts == "val")).any() and len(values) > 1:
            parts[(parts == "train") & (chance == values[0])] = "val"


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
    if dataset.groups is None:
        return _scramble(_words(dataset.hashes()), seed) / 2.0**64
    names = {name: hashlib.blake2b(name.encode(), digest_size=8).digest() for name in set(dataset.groups)}
    words = np.frombuffer(b"".join(names[name] for name in dataset.groups), dtype=">u8").astype(np.uint64)
    return _scramble(_joined(words, dataset.hashes()), seed) / 2.0**64


def _words(hashes: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first 64 bits of hex hashes (N,)."""
    digits = b"".join(hashes.astype("S16").tolist()).decode()
    return np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64)


def _joined(groups: NDArray[np.uint64], contents: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return one word per image, equal within a group and for copies: groups that share a picture become one."""
    ties = [np.unique(names, return_inverse=True)[1] for names in (groups, contents)]
    while True:
        before = groups
        for tie in ties:
            least = np.full(len(groups), np.iinfo(np.uint64).max, np.uint64)
            np.minimum.at(least, tie, groups)
            groups = least[tie]
        if np.array_equal(groups, before):
            return groups


def _scramble(words: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Mix a seed into 64-bit words: the finaliser of splitmix64, which changes every bit by every other."""
    mixed = words + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64)


def _check(dataset: Dataset, found: Split, own: set[str]) -> None:
    """Refuse parts without a class; a sealed test part may lack rare ones, which the report then says."""
    for name, indices in (("train", found.train), ("val", found.val), ("test", found.test)):
        present = np.bincount(dataset.labels[indices], minlength=len(dataset.classes))
        missing = [class_name for class_name, count in zip(dataset.classes, present, strict=True) if not count]
        if missing and (name != "test" or not len(indices)):
            counts = dataset.counts()
            shown = ", ".join(f"{class_name!r} ({counts[class_name]} images in all)" for class_name in missing[:5])
            raise DataError(
                f"{dataset.name}: the {name} part has no image of {len(missing)} class"
                f"{'es' * (len(missing) > 1)}: {shown}",
                do=_remedy(name, missing[0], found.rule, official=name in own or (name == "train" and bool(own))),
            )


def _remedy(part: str, class_name: str, rule: dict[str, Any], *, official: bool) -> str:
    """Say what to do about a class that a part lacks; a part that the data came with has no fraction to set."""
    if official:
        return f"add images of {class_name!r} to the {part} part of the data, or remove the class everywhere"
    advice = f"add images of {class_name!r}, or take another split: --set data.split_seed={int(rule['seed']) + 1}"
    if part == "train":
        return advice
    share = min(0.5, 2 * float(rule[f"{part}_fraction"]))
    return f"{advice}, or a larger part: --set data.{part}_fraction={share:g}"
