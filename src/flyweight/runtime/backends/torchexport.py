"""Programs of torch.export on the CPU. This one needs torch, which is imported when a file is loaded.

torch reads such files with pickle where they ask for it, and pickle can run anything. A file that asks is refused here;
those that `flyweight convert` writes hold their weights as plain bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import BundleError, MissingExtraError


class TorchExport:
    """A `.pt2` file that takes uint8 images (N, C, S, S) and gives logits."""

    name = "torch-export"
    only_batch: int | None = None

    def __init__(self, file: Path, threads: int) -> None:
        self._torch = _import_torch()
        content = Path(file).read_bytes()
        try:
            refuse_pickles(content)
            program = self._torch.export.load(io.BytesIO(content))
            self._module = program.module()
            name = program.graph_signature.user_inputs[0]
            (given,) = (node.meta["val"] for node in program.graph.nodes if node.name == name)
        except Exception as error:  # zipfile's, json's, torch's RuntimeError and its serializer's own
            raise BundleError(
                f"torch-export cannot load {str(file)!r}: {error}", do="convert the bundle again"
            ) from error
        self._torch.set_num_threads(threads)
        self.how = f"eager, {threads} thread(s)"
        self.shape = _image_shape(given, file)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        with self._torch.no_grad():
            logits: np.ndarray = self._module(self._torch.from_numpy(np.ascontiguousarray(images))).numpy()
        return logits


def refuse_pickles(content: bytes) -> None:
    """Refuse a file of which torch would unpickle anything but plain tensors. Raises ValueError."""
    torch = _import_torch()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            inside = name.partition("/")[2]
            if inside.endswith("_config.json"):
                entries = json.loads(archive.read(name))["config"]
                pickled = [key for key, entry in entries.items() if entry.get("use_pickle", True)]
                if pickled:
                    raise ValueError(f"it holds {pickled[0]!r} as a pickle, which could run anything")
            elif inside.startswith("data/sample_inputs/"):
                # As torch reads it first; where this fails torch would go on and run what it finds.
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)


def _import_torch() -> Any:
    try:
        import torch
        import torch.export  # not an attribute of torch until it is imported
    except ImportError as error:
        raise MissingExtraError(f"torch cannot be imported ({error})", do="pip install 'flyweight[train]'") from error
    return torch


def _image_shape(given: Any, file: Path) -> tuple[int, int, int]:
    sides = list(given.shape)[1:]
    if str(given.dtype) != "torch.uint8" or len(sides) != 3:
        raise BundleError(
            f"{str(file)!r} takes {given.dtype}{list(given.shape)}, not torch.uint8[N, C, S, S]",
            do="write the file with flyweight convert: normalisation belongs inside the graph",
        )
    channels, height, width = (int(side) for side in sides)
    return (channels, height, width)


def load(file: Path, threads: int) -> TorchExport:
    """Return the loaded file. Raises BundleError, MissingExtraError."""
    return TorchExport(file, threads)
