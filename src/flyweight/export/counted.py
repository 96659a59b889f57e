"""The counted cost of networks that are not trained yet, remembered between calls."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from flyweight import __version__
from flyweight.data.cache import cache_root
from flyweight.export.onnx import export_untrained
from flyweight.files import write_json
from flyweight.models.architecture import Architecture, fold
from flyweight.models.cost import Cost, count


@dataclass(frozen=True)
class Counted:
    """What the file of an untrained network costs: the counts of its graph, and its bytes."""

    cost: Cost
    size_bytes: int

    def values(self) -> dict[str, float | None]:
        """Return the values by metric of a budget."""
        return {
            "params": float(self.cost.params),
            "macs": float(self.cost.macs),
            "peak_activation": float(self.cost.peak_activation_bytes),
            "size": float(self.size_bytes),
        }


def counted(architecture: Architecture) -> Counted:
    """Return the cost of the file that `architecture` would ship: exported once, then read from the cache.

    Raises:
        ModelError: The architecture cannot be built.
        ExportError: torch cannot export this network.
    """
    if known := remembered(architecture):
        return known
    with tempfile.TemporaryDirectory(prefix="flyweight-count-") as folder:
        file = export_untrained(architecture, Path(folder) / "model.onnx")
        found = Counted(count(file), file.stat().st_size)
    write_json(_memory_of(architecture), {**found.cost.to_json(), "size_bytes": found.size_bytes})
    return found


def remembered(architecture: Architecture) -> Counted | None:
    """Return what an earlier `counted` found; None where there was none."""
    file = _memory_of(architecture)
    if not file.is_file():
        return None
    content = json.loads(file.read_text("utf-8"))
    size = content.pop("size_bytes")
    return Counted(Cost(**{**content, "unsupported": tuple(content["unsupported"])}), size)


def counted_params(architecture: Architecture) -> int:
    """Return the learned values of the folded network without exporting it: those of `counted`."""
    network, _ = fold(architecture.build(), architecture)
    return sum(parameter.numel() for parameter in network.parameters())


def _memory_of(architecture: Architecture) -> Path:
    """Name the file by everything the graph depends on."""
    facts = [architecture.to_json(), "with size", __version__, torch.__version__, timm.__version__]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return cache_root() / "costs" / f"{architecture.name.replace(':', '_')}-{digest}.json"
