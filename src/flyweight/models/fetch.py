"""Published weights, from timm (Hugging Face hub) or torchvision, or from a file that was carried here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import ModelError
from flyweight.models.architecture import Architecture
from flyweight.models.card import pretrained_names
from flyweight.models.weights import Weights
from flyweight.models.zoo import ZOO, find

_TORCHVISION_LICENCE = "BSD-3-Clause (code); ImageNet's terms for the weights"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def known_names(pattern: str = "") -> list[str]:
    """Return the names of published weights of the catalogue's networks that contain `pattern`; asks no network."""
    found = [name for entry in ZOO.values() for name in pretrained_names(entry.library, entry.name)]
    return [name for name in found if pattern in name]


def licence_of(name: str) -> str:
    """Return the licence that the publisher states for one of `known_names`, "" where none; asks no network."""
    library, _, tagged = name.partition("/")
    if library == "torchvision":
        return _TORCHVISION_LICENCE
    import timm

    config = timm.get_pretrained_cfg(tagged)
    return (config.license or "") if config else ""


def fetch(name: str, file: Path | None = None) -> Weights:
    """Return published weights, downloaded, or read from a file of the same publisher.

    Args:
        name: `timm/NETWORK.TAG` or `torchvision/NETWORK.TAG`.
        file: The publisher's .safetensors, .pth or .pt file; None: download it.

    Raises:
        ModelError: No such weights, no connection, or a file of another network.
    """
    library, _, tagged = name.partition("/")
    makers = {"timm": _timm, "torchvision": _torchvision}
    if library not in makers or not tagged:
        raise _unknown(name)
    architecture, licence, data, source, state = makers[library](name, tagged, file)
    weights = {f"net.{key}": value for key, value in state.items()}
    wanted = architecture.build().state_dict()
    wrong = sorted(key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape)
    if wrong:
        raise ModelError(
            f"{len(wrong)} of {len(wanted)} tensors of {architecture.name} are missing or have another shape in "
            f"{source}, the first: {wrong[0]}",
            do="give the file that belongs to this name",
        )
    return Weights(name, architecture, {key: weights[key] for key in wanted}, licence, source, data)


_Found = tuple[Architecture, str, str, str, Mapping[str, Tensor]]


def _timm(name: str, tagged: str, file: Path | None) -> _Found:
    import timm
    from timm.models import load_state_dict_from_hf

    config = timm.get_pretrained_cfg(tagged) if tagged in timm.list_pretrained(tagged.partition(".")[0]) else None
    if config is None:
        raise _unknown(name)
    if config.num_classes < 2:
        raise ModelError(
            f"{name} are weights of a trunk without classes, and a network here has two at least",
            do=f"choose others: flyweight weights list --known {tagged.partition('.')[0]}",
            more="docs/weights.md",
        )
    network = timm.create_model(tagged.partition(".")[0], num_classes=config.num_classes)
    if file is not None:
        state, source = _read(file), str(file)
    else:
        source = f"huggingface.co/{config.hf_hub_id}"
        try:
            state = load_state_dict_from_hf(config.hf_hub_id)
        except Exception as error:  # whatever the hub's client raises without a connection
            raise _no_connection(name, source, error) from error
    filtered = _filtered(network, state)
    architecture = Architecture(
        tagged.partition(".")[0],
        config.num_classes,
        3,
        int(config.input_size[-1]),
        {"min_map": 1},
        mean=tuple(config.mean),
        std=tuple(config.std),
    )
    return architecture, config.license or "", _data_of(tagged), source, filtered


def _filtered(network: Any, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the state dict renamed by the network's own rule, where its module has one (timm's convention).

    The rules look for tensors of their own network: what one cannot read is returned as it is, and `fetch` refuses it.
    """
    import importlib

    rule = getattr(importlib.import_module(type(network).__module__), "checkpoint_filter_fn", None)
    try:
        renamed: Mapping[str, Tensor] = rule(dict(state), network) if rule else state
    except (LookupError, RuntimeError, AttributeError, TypeError, ValueError):
        return state
    return renamed


def _torchvision(name: str, tagged: str, file: Path | None) -> _Found:
    import torchvision

    model, _, tag = tagged.rpartition(".")
    try:
        known = pretrained_names("torchvision", model)
    except ValueError:
        known = ()
    if name not in known or model not in ZOO:
        raise _unknown(name)
    published = torchvision.models.get_model_weights(model)[tag]
    source = str(file) if file is not None else str(published.url)
    if file is not None:
        state = _read(file)
    else:
        try:
            state = published.get_state_dict(progress=True)
        except OSError as error:
            raise _no_connection(name, source, error) from error
    mean, std = _IMAGENET
    architecture = Architecture(
        find(model).name, len(published.meta["categories"]), 3, 224, {"min_map": 1}, mean=mean, std=std
    )
    return architecture, _TORCHVISION_LICENCE, "ImageNet-1k", source, state


def _read(file: Path) -> Mapping[str, Tensor]:
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if file.suffix == ".safetensors":
            read: Mapping[str, Tensor] = load(file.read_bytes())
            return read
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{file} cannot be read as weights: {' '.join(str(error).split())[:160]}",
            do="give the publisher's .safetensors, .pth or .pt file",
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{file} holds no state dict", do="give the publisher's .safetensors, .pth or .pt file")
    return state


def _data_of(tagged: str) -> str:
    """Return what a timm tag says of the training data (tags end in in1k, in22k, in22k_ft_in1k, in12k, ...)."""
    tag = tagged.partition(".")[2]
    parts = {"in22k": "ImageNet-22k", "in21k": "ImageNet-21k", "in12k": "ImageNet-12k", "in1k": "ImageNet-1k"}
    found = [words for part, words in parts.items() if part in tag]
    return ", then ".join(found) or f"see the tag {tag!r}"


def _unknown(name: str) -> ModelError:
    close = difflib.get_close_matches(name, known_names(), n=3, cutoff=0.4)
    return ModelError(
        f"there are no published weights {name!r}",
        do=(f"did you mean {', '.join(close)}? " if close else "") + "`flyweight weights list --known` lists them",
        more="docs/weights.md",
    )


def _no_connection(name: str, source: str, error: BaseException) -> ModelError:
    return ModelError(
        f"{name} cannot be downloaded from {source}: {' '.join(str(error).split())[:160]}",
        do=f"fetch it where there is a connection (flyweight weights get {name}, then flyweight weights vendor {name} "
        f"--to FOLDER) and carry FOLDER here, or give the publisher's file: flyweight weights get {name} --file FILE",
        more="docs/weights.md",
    )
