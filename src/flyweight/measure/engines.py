"""Does a backend run a model, what does it answer, and where does each node run?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import BundleError, FlyweightError, MissingExtraError
from flyweight.export.c.check import compile_if_ours
from flyweight.measure.table import EngineRow
from flyweight.runtime.backends import DEFAULT, available, load_backend
from flyweight.runtime.bundle import GOLDEN_IMAGES, Bundle, Variant
from flyweight.runtime.placement import placement
from flyweight.runtime.timing import images_of

ALL = "all"


@dataclass(frozen=True)
class Model:
    """A model file to sweep: a variant of a bundle, with golden images and logits, or a bare .onnx file.

    Attributes:
        backend: That it is run with where none is asked for.
    """

    name: str
    file: Path
    backend: str = DEFAULT
    precision: str | None = None
    images: Path | None = None
    golden: Path | None = None
    tolerance: float | None = None


def models_of(path: Path, bundle: Bundle | None, variant: str | None, *, alone: bool) -> list[Model]:
    """Return the variants of a bundle (all, or the one named), or the bare file; `alone` names them without the path.

    Raises:
        BundleError: No such file or variant, or one in C that Flyweight did not write.
    """
    if bundle is None:
        if not path.is_file():
            raise BundleError(f"there is no file {str(path)!r}", do="give a bundle or an .onnx file")
        return [Model(path.name if alone else str(path), path)]
    chosen = [bundle.variant(variant)] if variant else list(bundle.variants.values())
    return [_variant_model(bundle, one, one.name if alone else f"{bundle.name} {one.name}") for one in chosen]


def _variant_model(bundle: Bundle, variant: Variant, name: str) -> Model:
    with contextlib.suppress(MissingExtraError):  # no compiler: the cell says it, and the others are timed
        compile_if_ours(bundle, variant)
    images = bundle.path / GOLDEN_IMAGES
    return Model(
        name, variant.file, variant.backend, variant.precision, images, variant.golden, variant.tolerance
    )  # fmt: skip


def backends_of(names: Sequence[str], model: Model) -> tuple[str, ...]:
    """Return the backends that were asked for, or that the model was made for."""
    if not names:
        return (model.backend,)
    return tuple(
        dict.fromkeys(one for name in names for one in (available(model.file.suffix) if name == ALL else (name,)))
    )


def try_engine(model: Model, name: str, sizes: set[int]) -> EngineRow:
    """Return whether the backend runs the model and what it answers, in this process."""
    row = EngineRow(model=model.name, precision=model.precision, backend=name)
    try:
        engine = load_backend(name, model.file)
    except FlyweightError as error:
        return row.model_copy(update={"error": error.what})
    _refuse_other_batches(model, engine.only_batch, sizes)
    images = images_of(str(model.images) if model.images else None, engine.shape)
    try:
        found = _logits(engine.run, images, engine.only_batch)
        placed = placement(model.file, name)
        expected = np.load(model.golden) if model.golden else _default_logits(model, images)
    except FlyweightError as error:
        return row.model_copy(update={"error": error.what})
    return EngineRow(
        **row.model_dump(include={"model", "precision", "backend"}),
        how=getattr(engine, "how", ""),
        asked=placed.asked,
        nodes=len(placed.nodes),
        elsewhere=placed.elsewhere,
        reference="golden" if model.golden else DEFAULT,
        **agreement(found, expected, model.tolerance),
    )


def agreement(found: np.ndarray, expected: np.ndarray, tolerance: float | None) -> dict[str, Any]:
    """Return how far logits (N, K) agree with those expected: in the best class, and in their largest difference."""
    finite = found.shape == expected.shape and bool(np.isfinite(found).all())
    same = float(np.mean(found.argmax(1) == expected.argmax(1))) if found.shape == expected.shape else None
    error = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) if finite else None
    within = None if tolerance is None else error is not None and error <= tolerance
    return {
        "n": len(found), "top1_agreement": same, "largest_difference": error, "tolerance": tolerance, "within": within,
    }  # fmt: skip


def _default_logits(model: Model, images: np.ndarray) -> np.ndarray:
    engine = load_backend(DEFAULT, model.file)
    return _logits(engine.run, images, engine.only_batch)


def _logits(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, only_batch: int | None) -> np.ndarray:
    step = only_batch or len(images)
    whole = range(0, len(images) - step + 1, step)
    return np.concatenate([np.array(run(np.ascontiguousarray(images[i : i + step]))) for i in whole])


def _refuse_other_batches(model: Model, only_batch: int | None, sizes: set[int]) -> None:
    others = sorted(sizes - {only_batch})
    if only_batch is not None and others:
        raise BundleError(
            f"{str(model.file.name)!r} takes {only_batch} image(s) at a time and no other number; asked for "
            f"{', '.join(map(str, others))}",
            do=f"measure with --batch {only_batch}, or export the model with a free batch (flyweight export does)",
        )
