"""The untrained networks that `fit` chooses from, as files for a device to time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flyweight.fit.candidates import Candidate, candidates_for
from flyweight.fit.weigh import architecture_of, net_of, untrained_file
from flyweight.kit.pack import UntrainedFile
from flyweight.runtime.bundle import Bundle


def untrained_files(
    bundle: Bundle, folder: Path, *, models: Sequence[str] = (), sizes: Sequence[int] = ()
) -> list[UntrainedFile]:
    """Return every candidate for images like the bundle's, in float and in int8, exported to `folder`.

    Args:
        models: Names of the catalogue; what `fit` tries by itself without.
        sizes: Image sizes in px; the bundle's and about two thirds of it without.

    Raises:
        ModelError: There is no such network.
        ExportError: One cannot be exported.
    """
    floats = candidates_for(bundle.preprocess.image_size, models, sizes)
    both = [one for candidate in floats for one in (candidate, replace(candidate, precision="int8"))]
    return [_file(candidate, bundle, folder) for candidate in both]


def _file(candidate: Candidate, bundle: Bundle, folder: Path) -> UntrainedFile:
    architecture = architecture_of(candidate, bundle.preprocess.channels, len(bundle.classes))
    file = untrained_file(candidate, architecture, folder)
    return UntrainedFile(candidate.name, file, net_of(architecture), candidate.precision)
