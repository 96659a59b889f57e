"""The counted cost of networks that are not trained yet, remembered between calls."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import timm
import torch

from flyweight import __version__
from flyweight.data.cache import cache_root
from flyweight.export.onnx import export_untrained
from flyweight.files import write_json
from flyweight.models.architecture import Architecture, fold
from flyweight.models.cost import Cost, count


def counted(architecture: Architecture) -> Cost:
    """Return the cost of the graph that `architecture` would ship: exported once, then read from the cache.

    Raises:
        ModelError: The architecture cannot be built.
        ExportError: torch cannot export this network.
    """
    remembered = _memory_of(architecture)
    if remembered.is_file():
        content = json.loads(remembered.read_text("utf-8"))
        return Cost(**{**content, "unsupported": tuple(content["unsupported"])})
    with tempfile.TemporaryDirectory(prefix="flyweight-count-") as folder:
        cost = count(export_untrained(architecture, Path(folder) / "model.onnx"))
    write_json(remembered, cost.to_json())
    return cost


def counted_params(architecture: Architecture) -> int:
    """Return the learned values of the folded network without exporting it: equal to `counted(...).params`."""
    network, _ = fold(architecture.build(), architecture)
    return sum(parameter.numel() for parameter in network.parameters())


def _memory_of(architecture: Architecture) -> Path:
    """Name the file by everything the graph depends on."""
    facts = [architecture.to_json(), __version__, torch.__version__, timm.__version__]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return cache_root() / "costs" / f"{architecture.name.replace(':', '_')}-{digest}.json"
