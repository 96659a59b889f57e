"""Weights on this machine that `fit` lets networks begin from, where there are few images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.data.dataset import Dataset
from flyweight.errors import FlyweightError, ModelError
from flyweight.files import write_json
from flyweight.fit.candidates import Candidate, recipe_for
from flyweight.models.adapt import default_min_map
from flyweight.models.architecture import Architecture
from flyweight.models.weights import facts_of, stored
from flyweight.models.zoo import find
from flyweight.train.prepare import native_shape
from flyweight.train.run import refuse_other_split

# Images a class, in the mean: up to here the study few_images found fine-tuning best; it has not asked beyond.
FEW = 200
ENLARGED = 2  # times: weights for larger images than so many times the native side are not tried


@dataclass(frozen=True)
class Pretrained:
    """Candidates that begin from weights, and why other weights are not tried, by their names."""

    candidates: tuple[Candidate, ...]
    skipped: Mapping[str, str]


def pretrained_candidates(
    dataset: Dataset, file: Path, *, models: Sequence[str] = (), sizes: Sequence[int] = (), seed: int = 0
) -> Pretrained:
    """Return a candidate for each network and size that weights on this machine were trained at.

    Which these are is kept in `file`: a stopped run goes on with the same.

    Args:
        models: Networks that are allowed; () for all.
        sizes: Image sizes in px that are allowed; () for all.

    Raises:
        ModelError: The run began with weights that are gone or changed.
        OutputError: `file` cannot be written.
    """
    here = dict(stored())
    if file.is_file():
        kept = json.loads(file.read_text("utf-8"))
        return Pretrained(tuple(_again(row, here, file) for row in kept), {})
    side, channels = native_shape(dataset)
    found: dict[tuple[str, int], Candidate] = {}
    rows, skipped = [], {}
    for name, folder in here.items():
        try:
            facts = facts_of(folder)
            architecture = _plain(facts, ENLARGED * side)
            candidate = Candidate(architecture.name, architecture.image_size, pretrained=name)
            recipe = recipe_for(candidate, channels=channels, seed=seed)
            refuse_other_split(facts.get("trained_on", {}), dataset, recipe, f"the weights {name!r}")
        except (FlyweightError, KeyError, TypeError, ValueError) as error:
            skipped[name] = str(error).splitlines()[0]
            continue
        key = (candidate.model, candidate.image_size)
        if (not models or key[0] in models) and (not sizes or key[1] in sizes) and key not in found:
            found[key] = candidate
            rows.append({"name": name, "model": key[0], "image_size": key[1], "sha256": facts["sha256"]})
    write_json(file, rows)
    return Pretrained(tuple(found.values()), skipped)


def _plain(facts: Mapping[str, Any], largest: int) -> Architecture:
    """Return the network of weights. Raises ModelError where a candidate cannot be that network."""
    architecture = Architecture.from_json(facts["architecture"])
    if architecture.surgery:
        raise ModelError("its network was changed after it was built", do="add the float, single run")
    if architecture.image_size > largest:
        raise ModelError(f"it is for {architecture.image_size} px, more than {largest}", do="use larger images")
    usual = {"min_map": default_min_map(architecture.image_size)}
    if architecture.args not in ({}, usual):
        raise ModelError(f"its network has arguments of its own: {dict(architecture.args)}", do="use it with train")
    find(architecture.name)
    return architecture


def _again(row: Mapping[str, Any], here: Mapping[str, Path], file: Path) -> Candidate:
    name = row["name"]
    if name not in here or facts_of(here[name])["sha256"] != row["sha256"]:
        raise ModelError(
            f"this fit began with the weights {name!r}, which are gone or changed ({file})",
            do="put them back (flyweight weights list), or begin anew with another --out",
            more="docs/weights.md",
        )
    return Candidate(row["model"], row["image_size"], pretrained=name)
