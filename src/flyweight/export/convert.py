"""`Bundle -> Bundle`: one more model file, in another format or precision, that agrees with the float file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import ExportError, OrderError
from flyweight.export.bundle import NewVariant, add_file, check_name
from flyweight.export.formats import Format, Original, Written, find_format
from flyweight.export.formats.format import need
from flyweight.export.images import RealImages, golden_only
from flyweight.export.parity import (
    AGREEMENT,
    SAME_CLASS,
    TOLERANCE,
    Parity,
    backend_logits,
    compare_converted,
    file_logits,
)
from flyweight.runtime.backends import load_backend
from flyweight.runtime.bundle import MANIFEST, Bundle, Variant
from flyweight.runtime.environment import environment

TRAINING = "training"  # folder in the bundle: the unfolded weights
RUN = "trained.json"  # tells the folder of a run


@dataclass(frozen=True)
class Converted:
    """A bundle with one more variant.

    Attributes:
        variant: The new one.
        parity: With the float file, on real images through the runtime that ships.
        written: What the converter said.
    """

    bundle: Bundle
    variant: Variant
    parity: Parity
    written: Written


def open_bundle(path: Path) -> Bundle:
    """Return the bundle to convert.

    Raises:
        OrderError: It is the folder of a run, of which no bundle has been made yet.
        BundleError: It is no bundle.
    """
    path = Path(path)
    if path.is_dir() and (path / RUN).is_file() and not (path / MANIFEST).is_file():
        raise OrderError(
            f"{str(path)!r} is a run; a format is another file of a bundle, which is made of the run first",
            do=f"flyweight export {path} --data DATA --out BUNDLE, then flyweight convert BUNDLE",
        )
    return Bundle.open(path)


def convert(
    bundle: Bundle,
    to: str,
    out: Path,
    *,
    precision: str | None = None,
    images: RealImages | None = None,
    run: Path | None = None,
    name: str | None = None,
    opset: int | None = None,
    same_class: float | None = None,
    default: bool = False,
) -> Converted:
    """Return the bundle written at `out` with one more variant, in the format `to`.

    Args:
        precision: The format's usual one without.
        images: To calibrate on and to compare on; the golden images of the bundle without.
        run: Folder of the run, for formats written from torch where the bundle ships no training weights.
        name: Of the variant; FORMAT-PRECISION without.
        opset: Of ONNX.
        same_class: Least top-1 agreement (0 to 1) with the float file, in a lower precision.
        default: Make it the variant that is used when none is named.

    Raises:
        ExportError: An unknown format, a network it cannot express, or a file that disagrees with the float one.
        MissingExtraError: The format's packages are not installed.
        OutputError: `out` cannot be written.
    """
    found, chosen = find_format(to, precision)
    source = found.source(bundle, chosen) if found.source else float_variant(bundle)
    _refuse(found, chosen, images, opset)
    for package in found.packages:
        need(package, found.extra)
    given = images or golden_only(bundle)
    if name is not None:
        check_name(name)
    variant = name or "-".join([found.name, *([f"opset{opset}"] if opset else []), chosen])
    original = Original(bundle, source, given.calibration, run or weights_of(bundle), opset)
    with tempfile.TemporaryDirectory(prefix="flyweight-convert-") as folder:
        file = Path(folder) / f"model-{variant}{found.suffix}"
        written = found.write(original, chosen, file)
        _refuse_float(found, chosen, written)
        backend = load_backend(found.backend, file)
        parity = compare_converted(
            file_logits(source.file, given.parity), backend_logits(backend, given.parity), chosen
        )
        # Written from a file of the same precision, it must say what that says.
        check(parity, variant, chosen, AGREEMENT if source.precision == chosen else same_class)
        new = NewVariant(
            name=variant,
            files=(file, *written.beside),
            format=found.name,
            precision=chosen,
            backend=found.backend,
            source=source.source or source.name,
            golden=_golden(bundle, source, chosen, backend_logits(backend, bundle.golden(source)[0])),
            parity=parity,
            provenance=_provenance(found, written, given, source),
        )
        made = add_file(bundle, Path(out), new, default=default)
    return Converted(made, made.variant(variant), parity, written)


def float_variant(bundle: Bundle) -> Variant:
    """Return the exported float ONNX file, which everything is converted from and compared with. Raises ExportError."""
    for variant in bundle.variants.values():
        if variant.format == "onnx" and variant.precision == "fp32" and variant.source is None:
            return variant
    raise ExportError(
        f"the bundle {bundle.name!r} has no float ONNX file to convert; it has {', '.join(bundle.variants)}",
        do="export the float run, and the int8 one with it: flyweight export RUN --int8 RUN8 --data DATA --out OUT",
    )


def weights_of(bundle: Bundle) -> Path | None:
    """Return the folder of the training weights that a bundle ships, or None."""
    folder = bundle.path / TRAINING
    return folder if (folder / RUN).is_file() else None


def check(parity: Parity, name: str, precision: str, same_class: float | None = None) -> None:
    """Refuse a converted file that disagrees with the float one. Raises ExportError."""
    least = SAME_CLASS[precision] if same_class is None or precision == "fp32" else same_class
    largest = parity.tolerance / TOLERANCE[precision]  # of the logits; an error above it is one of scale
    far = parity.max_abs_error > (parity.tolerance if precision == "fp32" else largest)
    if far or not np.isfinite(parity.max_abs_error) or parity.top1_agreement < least:
        allowed = f" (allowed {parity.tolerance if precision == 'fp32' else largest:.3g})"
        raise ExportError(
            f"{name} disagrees with the float file on {parity.n} images: largest difference of a logit "
            f"{parity.max_abs_error:.3g}{allowed}, top-1 agreement {parity.top1_agreement:.2%} "
            f"(needed {least:.1%})",
            do="ship the float file or another precision"
            + ("" if precision == "fp32" else ", or train for int8: flyweight train DATA --recipe qat --from RUN"),
            more="docs/formats.md#when-a-conversion-is-refused",
        )


def _refuse(found: Format, precision: str, images: RealImages | None, opset: int | None) -> None:
    if precision in found.calibrated and (images is None or not len(images.calibration)):
        raise ExportError(
            f"{found.title} in {precision} is calibrated on images, and no data was given",
            do="add --data DATA: the data the bundle was trained on",
        )
    if opset is not None and found.name != "onnx":
        raise ExportError(f"--opset {opset} says nothing to {found.title}", do="leave it out, or convert --to onnx")


def _refuse_float(found: Format, precision: str, written: Written) -> None:
    if precision != "fp32" and written.layers and len(written.in_float) == written.layers:
        raise ExportError(
            f"all {written.layers} layers of the {precision} file would be computed in float32 by {found.backend} on "
            "this machine: a converter or runtime that silently stayed float",
            do="ship fp32, or convert on a machine that computes in this precision",
            more="docs/formats.md#when-a-conversion-is-refused",
        )


def _golden(bundle: Bundle, source: Variant, precision: str, found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the file must give anywhere: in fp32 the trained network's logits, else those it gives here."""
    return bundle.golden(source)[1] if precision == "fp32" else found


def _provenance(found: Format, written: Written, images: RealImages, source: Variant) -> Mapping[str, Any]:
    conditions = environment()
    return {
        "converted_from": source.name,
        "format": found.title,
        "tool": written.tool,
        "carries": f"class names and preprocessing are {found.carries}",
        "compared_on": images.source,
        "calibrated_on": len(images.calibration),
        "layers": written.layers,
        "in_float": list(written.in_float),
        "notes": list(written.notes),
        "versions": conditions["versions"],
        "cpu": conditions["cpu"],
    }
