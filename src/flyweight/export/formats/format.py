"""What a format is: a name, what it offers, and a function that writes a model file of it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import ExportError, MissingExtraError
from flyweight.runtime.bundle import Bundle, Variant

if TYPE_CHECKING:
    from torch import nn

MORE = "docs/formats.md"


@dataclass(frozen=True)
class Original:
    """What a format writes its file from.

    Attributes:
        variant: The ONNX file of the bundle that it is written from: the float one, unless the format says otherwise.
        calibration: Training images (N, C, S, S) uint8, none where no data was given.
        weights: Folder of the trained weights, the bundle's own or the run's; None where there are none.
        opset: Of ONNX, where the caller chose one.
    """

    bundle: Bundle
    variant: Variant
    calibration: NDArray[np.uint8]
    weights: Path | None = None
    opset: int | None = None

    @property
    def texts(self) -> dict[str, str]:
        """Class names and preprocessing as JSON, for formats that carry texts."""
        texts = {"classes": list(self.bundle.classes), "preprocess": self.bundle.preprocess.to_json()}
        return {key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in texts.items()}

    @cached_property
    def network(self) -> nn.Module:
        """The network in torch, folded: images (N, C, S, S) uint8 to logits (N, K).

        Raises:
            ExportError: Neither the bundle nor the caller has its weights.
            MissingExtraError: torch is not installed.
        """
        if self.weights is None:
            raise ExportError(
                f"this format is written from the network in torch, and the bundle {self.bundle.name!r} ships no "
                "training weights",
                do="name the folder of the run it was exported from with --run, or choose a format that is written "
                "from the ONNX file",
                more=f"{MORE}#what-each-is-written-from",
            )
        need("torch", "train")
        from flyweight.export.onnx import plain
        from flyweight.models.architecture import fold
        from flyweight.train.trained import Trained

        trained = Trained.load(self.weights)
        network, _ = fold(trained.network().cpu(), trained.architecture)
        return plain(network)


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        tool: The converter and its version.
        beside: Further files that the model file needs.
        layers: Convolutions and matrix products in the file.
        in_float: Those of them that the runtime computes in float32 though the precision is a lower one.
        notes: What else the card should say.
    """

    tool: str
    beside: tuple[Path, ...] = ()
    layers: int = 0
    in_float: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format of model files.

    Attributes:
        suffix: Of the model file.
        backend: The one that runs it.
        extra: What `pip install 'flyweight[EXTRA]'` must have installed; empty: nothing.
        packages: That are imported for writing and running it.
        precisions: It can be written in, the usual one first.
        calibrated: Those of them that need images.
        carries: Where class names and preprocessing are: in the file, or in the bundle around it.
        write: Writes the model file at a path that ends in `suffix`. Raises ExportError.
        expresses: Tells whether it has words for all of a float ONNX file, given as bytes.
        source: Gives the ONNX file that a precision is written from, where that is not always the float one.
    """

    name: str
    title: str
    suffix: str
    backend: str
    extra: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    calibrated: tuple[str, ...]
    carries: str
    write: Callable[[Original, str, Path], Written]
    expresses: Callable[[bytes], bool]
    source: Callable[[Bundle, str], Variant] | None = None


def need(package: str, extra: str) -> None:
    """Refuse where a package is not installed. Raises MissingExtraError."""
    if find_spec(package) is None:
        raise MissingExtraError(f"the package {package!r} is not installed", do=f"pip install 'flyweight[{extra}]'")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a converter's notes and progress from the user; its errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        unread = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def cannot(title: str, operator: str, where: str, content: bytes, without: tuple[str, ...]) -> ExportError:
    """Return the error about an operator that a format has no words for.

    Args:
        operator: Its name in the graph that is converted.
        where: A node of that operator.
        content: The bundle's float ONNX file: the other formats are asked whether they have words for all of it.
        without: Formats that are not asked, since this error is theirs.
    """
    can = formats_that_can(content, without)
    return ExportError(
        f"{title} cannot express the operator {operator} ({where})",
        do=f"convert to a format that can: {', '.join(can)}; or train a network without it"
        if can
        else "train a network without it: no other format that is installed here can express it",
        more=f"{MORE}#what-a-format-cannot-express",
    )


def formats_that_can(content: bytes, without: tuple[str, ...] = ()) -> list[str]:
    """Return the formats, of those whose packages are installed, that have words for all of a float ONNX file."""
    from flyweight.export.formats import FORMATS  # which imports this module

    return [
        one.name
        for one in FORMATS.values()
        if one.name not in without and all(find_spec(package) for package in one.packages) and one.expresses(content)
    ]
