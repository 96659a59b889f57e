"""Weights to begin with, in folders that need no network: an air-gapped machine is a normal case.

A folder NAME holds `weights.safetensors` (named as in `Architecture.build()`) and `weights.json`: the network they
belong to, what they were trained on, licence and source. Names are looked for below each folder of FLYWEIGHT_WEIGHTS
(separated as PATH is), then in the cache; a path names a folder directly. Nothing here reaches for the network:
`models.fetch` does, when the user asks for it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

import torch
from torch import Tensor

from flyweight.data.cache_folder import cache_root
from flyweight.errors import ModelError
from flyweight.files import write_bytes, write_json
from flyweight.models.architecture import Architecture

TENSORS, FACTS, CACHE = "weights.safetensors", "weights.json", "weights"
SHIPPED = Path(__file__).parent / "pretrained"  # what comes with the package


class Initial(Protocol):
    """What training can begin with: a finished run, or weights from a folder."""

    @property
    def architecture(self) -> Architecture:
        """Return the network they belong to."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Return its state dict."""


@dataclass(frozen=True)
class Weights:
    """A state dict, the network it belongs to, and where it comes from.

    Attributes:
        licence: Of the weights, as their publisher states it; "" where nothing is stated.
        source: Address, file or run they were taken from.
        data: What they were trained on.
        trained_on: `fingerprint` and `split` (the rule) of that data, where it was a run of flyweight; else {}.
    """

    name: str
    architecture: Architecture
    weights: Mapping[str, Tensor]
    licence: str
    source: str
    data: str
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, *, half: bool = False) -> Path:
        """Write both files, each whole or not at all, and return the folder.

        Args:
            half: Keep 16 bits of each number, which halves the file; they are read as 32 again. A tensor with a number
                that 16 bits cannot hold keeps 32.
        """
        from safetensors.torch import save

        def kept(value: Tensor) -> Tensor:
            value = value.detach().cpu().contiguous().clone()
            fits = half and value.is_floating_point() and bool(value.half().isfinite().all())
            return value.half() if fits else value

        content = save({key: kept(value) for key, value in self.weights.items()})
        write_bytes(folder / TENSORS, content)
        facts: dict[str, Any] = {"name": self.name, "licence": self.licence, "source": self.source, "data": self.data}
        facts |= {"trained_on": dict(self.trained_on), "sha256": hashlib.sha256(content).hexdigest()}
        write_json(folder / FACTS, {**facts, "architecture": self.architecture.to_json()})
        return folder


def cache_folder() -> Path:
    """Return the folder that `flyweight weights get` fills."""
    return cache_root() / CACHE


def folders() -> list[Path]:
    """Return where names are looked for, in order."""
    given = [Path(part) for part in os.environ.get("FLYWEIGHT_WEIGHTS", "").split(os.pathsep) if part]
    return [*given, cache_folder(), SHIPPED]


def stored() -> Iterator[tuple[str, Path]]:
    """Yield the name and folder of all weights on this machine; the first of a name is the one that is used."""
    seen = set()
    for above in folders():
        for facts in sorted(above.glob(f"**/{FACTS}")):
            name = facts.parent.relative_to(above).as_posix()
            if name not in seen:
                seen.add(name)
                yield name, facts.parent


def load_weights(name: str) -> Weights:
    """Return weights by name or path.

    Raises:
        ModelError: There are none, a file is damaged, or the name in it leads out of a folder of weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = folder_of(name)
    try:
        facts = _facts(folder)
        content = (folder / TENSORS).read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ModelError(f"{folder / TENSORS} is not the file that {FACTS} describes", do="fetch or copy it again")
        return Weights(
            name=facts["name"],
            architecture=Architecture.from_json(facts["architecture"]),
            weights={k: v.float() if v.is_floating_point() else v for k, v in load(content).items()},
            licence=facts["licence"],
            source=facts["source"],
            data=facts["data"],
            trained_on=facts.get("trained_on", {}),
        )
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise _no_weights(folder, error) from error


def facts_of(folder: Path) -> dict[str, Any]:
    """Return weights.json, with the bytes of the file added.

    Raises:
        ModelError: A file is missing or is not one of weights, or the name in it leads out of a folder of weights.
    """
    try:
        return {**_facts(folder), "size_bytes": (folder / TENSORS).stat().st_size, "folder": str(folder)}
    except (OSError, ValueError) as error:
        raise _no_weights(folder, error) from error


def check_name(name: str) -> str:
    """Return the name of weights, which is also their folder below another one.

    Raises:
        ModelError: It is absolute, or has a part that is empty, `.` or `..`: its folder could lie elsewhere.
    """
    parts = name.replace("\\", "/").split("/")
    if {"", ".", ".."} & set(parts) or PureWindowsPath(name).drive or "\0" in name:
        raise ModelError(
            f"{name!r} is no name of weights: it would lead out of the folder they are kept in",
            do="use a name such as mine/birds: parts with / between them, none of them empty, . or ..",
            more="docs/weights.md",
        )
    return name


def vendor(name: str, folder: Path) -> Path:
    """Copy weights into a folder to carry away, checked first; return where they are.

    Raises:
        ModelError: There are none, the file is damaged, or the name in it leads out of `folder`.
        OutputError: The folder cannot be written.
    """
    found = load_weights(name)
    target = folder / found.name
    for file in (FACTS, TENSORS):
        write_bytes(target / file, (folder_of(name) / file).read_bytes())
    return target


def forget(name: str) -> None:
    """Remove weights from the cache.

    Raises:
        ModelError: They are not in it, or the name leads out of it.
    """
    folder = cache_folder() / check_name(name)
    if not (folder / FACTS).is_file():
        raise ModelError(f"the cache holds no weights {name!r}", do="`flyweight weights list` says what there is")
    shutil.rmtree(folder)


def fitted(initial: Initial, architecture: Architecture) -> Mapping[str, Tensor]:
    """Return the weights with the first convolution's made for the channels of another architecture.

    One channel takes the sum over the old ones, as if they all were grey; others take them in turn, scaled so that
    their sum stays.
    Source: timm's adapt_input_conv does the same.
    """
    before, after = initial.architecture.in_chans, architecture.in_chans
    if before == after:
        return initial.weights
    wanted = {name: value.shape for name, value in architecture.build().state_dict().items()}
    found = dict(initial.weights)
    for name, value in initial.weights.items():
        shape = wanted.get(name)
        if shape is None or value.dim() != 4 or shape == value.shape:
            continue
        if value.shape[1] == before and shape == (value.shape[0], after, *value.shape[2:]):
            found[name] = _rechannelled(value, after)
    return found


def _rechannelled(weight: Tensor, channels: int) -> Tensor:
    before = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    order = torch.arange(channels) % before
    return weight[:, order] * (before / channels)


def _facts(folder: Path) -> dict[str, Any]:
    """Return weights.json with all that is read of it. Raises OSError, ValueError, or ModelError for its name."""
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    if not isinstance(facts, dict):
        raise ValueError(f"{FACTS} is a {type(facts).__name__} and no object")
    for key in ("name", "licence", "source", "data", "sha256"):
        _check_kind(facts, key, str)
    _check_kind(facts, "architecture", dict)
    _check_kind(facts["architecture"], "name", str)
    trained_on = facts.get("trained_on", {})
    if trained_on != {}:
        _check_kind(facts, "trained_on", dict)
        _check_kind(trained_on, "split", dict)
    check_name(facts["name"])
    return facts


def _check_kind(facts: Mapping[str, Any], key: str, kind: type) -> None:
    if not isinstance(facts.get(key), kind):
        raise ValueError(f"{FACTS} has no {key}" if key not in facts else f"{key} in {FACTS} is {facts[key]!r:.80}")


def _no_weights(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder} does not hold weights: {error}", do="fetch or copy them again")


def folder_of(name: str) -> Path:
    """Return the folder of weights by name or path. Raises ModelError."""
    for folder in (Path(name), *(above / name for above in folders())):
        if (folder / FACTS).is_file():
            return folder
    known = [known for known, _ in stored()]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
    raise ModelError(
        f"there are no weights {name!r} on this machine (looked in {', '.join(map(str, folders()))})",
        do=(f"did you mean {', '.join(close)}? " if close else "")
        + f"with a network connection: flyweight weights get {name}; without: copy a folder made by `flyweight weights "
        "vendor` here and set FLYWEIGHT_WEIGHTS to it",
        more="docs/weights.md",
    )
