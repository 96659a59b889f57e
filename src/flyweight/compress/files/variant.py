"""One more file in a bundle, if its trial says ship."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flyweight.compress.files import FILES
from flyweight.compress.files.context import FileContext, Made, answers
from flyweight.compress.step import Step, read_options, unknown_method
from flyweight.data.dataset import Dataset
from flyweight.errors import CompressError, ExportError
from flyweight.export.bundle import NewVariant, add_file
from flyweight.export.parity import Parity, compare, compare_levels
from flyweight.measure.trial import MARGIN, Trial, run_trial
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.operators import Operator, heavy_in_float, left_in_float, operators

PARITY_IMAGES = 1000


@dataclass(frozen=True)
class Conditions:
    """How a trial decides: on which part, with what margin, timed how."""

    part: Literal["val", "test"] = "val"
    margin: float = MARGIN
    threads: int = 1
    timing: Literal["full", "quick", "none"] = "full"


@dataclass(frozen=True)
class FileTrial:
    """A file that was made of a bundle's, and its trial.

    Attributes:
        bundle: With the new variant where it ships; else without.
        made: The file, in any case.
    """

    bundle: Bundle
    made: Made
    trial: Trial


def make_file(step: Step, bundle: Bundle, dataset: Dataset, variant: str | None = None, margin: float = MARGIN) -> Made:
    """Return the file that a step makes of a bundle's variant.

    Raises:
        CompressError: There is no such method or option, or it cannot be done to this file.
    """
    if step.method not in FILES:
        raise unknown_method(step, FILES)
    method = FILES[step.method]
    source = bundle.variant(variant)
    made = method.make(FileContext(dataset, bundle, source, margin), read_options(step, method.options))
    if made.name == source.name:
        raise CompressError(f"{step} would replace the variant {source.name!r} it is made of", do="name another source")
    return made


def try_file(
    step: Step,
    bundle: Bundle,
    dataset: Dataset,
    out: Path,
    *,
    variant: str | None = None,
    conditions: Conditions | None = None,
    default: bool = False,
    anyway: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FileTrial:
    """Make a file of a bundle's variant, hold its trial, and write the bundle at `out` with it where it ships.

    Args:
        variant: The source; its default variant without.
        default: Where it ships, make it the variant that is used when none is named.
        anyway: Write it though the trial says no; never as the default.

    Raises:
        CompressError: As `make_file`.
        ExportError: ONNX Runtime computes the file otherwise than it says, or in float what was to be int8.
    """
    how = conditions or Conditions()
    source = bundle.variant(variant).name
    made = make_file(step, bundle, dataset, source, how.margin)
    with tempfile.TemporaryDirectory(prefix="flyweight-compress-") as scratch:
        new = _checked_variant(step, made, FileContext(dataset, bundle, bundle.variant(source), how.margin), scratch)
        tried = add_file(bundle, Path(scratch) / "tried", new)
        trial = run_trial(
            (bundle, source), (tried, made.name), dataset, part=how.part, margin=how.margin,
            threads=how.threads, timing=how.timing, progress=progress,
        )  # fmt: skip
        if not (trial.ship or anyway):
            return FileTrial(bundle, made, trial)
        told = replace(new, provenance={**new.provenance, "trial": trial.record()})
        written = add_file(bundle, out, told, default=default and trial.ship)
    return FileTrial(written, made, trial)


def add_untried(step: Step, bundle: Bundle, dataset: Dataset, out: Path) -> Bundle:
    """Write the bundle at `out` with the file that a step makes of its default variant as the new default.

    Whether it ships is for the caller to try. Raises as `make_file` and `try_file`.
    """
    made = make_file(step, bundle, dataset)
    with tempfile.TemporaryDirectory(prefix="flyweight-compress-") as scratch:
        new = _checked_variant(step, made, FileContext(dataset, bundle, bundle.variant()), scratch)
        return add_file(bundle, out, new, default=True)


def _checked_variant(step: Step, made: Made, context: FileContext, scratch: str) -> NewVariant:
    """Return the file, written into `scratch`, as a variant that is what it says; raises as `checked`."""
    parity = checked(made, context)
    golden = answers(made.content, context.bundle.golden(context.source)[0], optimized=False)
    file = Path(scratch) / f"model-{made.name}.onnx"
    file.write_bytes(made.content)
    return NewVariant(
        made.name,
        (file,),
        "onnx",
        made.precision,
        "onnxruntime",
        context.source.name,
        golden,
        parity,
        provenance={"step": str(step), **made.facts, **_told(made)},
    )


def checked(made: Made, context: FileContext) -> Parity:
    """Return how far the runtime's answers are from what the file says, written out operator by operator.

    Raises:
        ExportError: Too far; or layers that were to be int8 are computed in float.
    """
    images, _ = context.training_images(PARITY_IMAGES)
    said, found = answers(made.content, images, optimized=False), answers(made.content, images)
    if made.precision == "int8":
        parity = compare_levels(said, found, answers(context.source.file, images))
        _refuse_float(made)
    else:
        parity = compare(said, found)
    if not parity.holds:
        raise ExportError(
            f"onnxruntime computes the {made.name} file otherwise than it says: {parity.to_json()}",
            do="do not ship it; report this with `flyweight doctor`",
        )
    return parity


def _told(made: Made) -> dict[str, Any]:
    """Return what the card says of a file that was made of another."""
    found = _computed(made)
    return {
        "tool": "flyweight compress",
        "carries": "classes and preprocessing are in its metadata",
        "layers": sum(one.heavy for one in found),
        "in_float": list(heavy_in_float(found)) if made.precision == "int8" else [],
        "notes": list(made.said),
    }


def _computed(made: Made) -> tuple[Operator, ...]:
    """Return the operators of a file as ONNX Runtime computes them."""
    with tempfile.TemporaryDirectory(prefix="flyweight-compress-") as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(made.content)
        return operators(file, "onnxruntime")


def _refuse_float(made: Made) -> None:
    found = _computed(made)
    unmeant, layers = left_in_float(found, made.kept_weights), sum(one.heavy for one in found)
    if unmeant or len(heavy_in_float(found)) == layers:
        raise ExportError(
            f"onnxruntime computes {len(unmeant) or layers} of {layers} layers of the int8 file in float that were to "
            f"be int8 ({', '.join((unmeant or heavy_in_float(found))[:3])}); {len(made.kept)} were to stay so",
            do="ship the float file, or name these layers in keep",
        )


__all__ = ["Conditions", "FileTrial", "add_untried", "checked", "make_file", "try_file"]
