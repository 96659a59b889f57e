"""`flyweight verify`: every number of a bundle again, from the shipped bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from flyweight.errors import BundleError, DataError
from flyweight.export.c.check import compile_if_ours
from flyweight.measure.accuracy import Accuracy, score
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle, Variant
from flyweight.runtime.environment import environment, usable_cores
from flyweight.runtime.golden import compare
from flyweight.runtime.predict import BATCH, Predictor

if TYPE_CHECKING:
    from flyweight.data.dataset import Dataset, ImageArray, ImageFiles

CARD_TOLERANCE = 5e-4  # of a recorded accuracy: another CPU may turn a handful of ties


class Verified(BaseModel):
    """What `flyweight verify --json` prints. Shares are 0 to 1; accuracy numbers are null without data.

    Attributes:
        golden_ok: The golden images give the recorded logits within the variant's tolerance.
        matches_card: The accuracy equals the recorded one; null when either is missing.
        unreadable: Test images that could not be read, with the reason; they make the check fail, unless the
            accuracy and number of images are as recorded without them.
        ok: Nothing failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    variant: str
    format: str
    precision: str
    backend: str
    classes: tuple[str, ...]
    params: int
    macs: int
    peak_activation_bytes: int
    size_bytes: int
    golden_ok: bool
    golden_n: int
    golden_max_error: float | None = Field(description="largest |logit - golden logit|; null when not finite")
    golden_tolerance: float
    data: str | None = None
    part: str | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    n: int | None = None
    top5: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    min_recall: float | None = None
    ece: float | None = None
    nll: float | None = None
    per_class: tuple[dict[str, Any], ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    matches_card: bool | None = None
    unreadable: tuple[dict[str, str], ...] = ()
    ok: bool
    failures: tuple[str, ...] = ()
    conditions: dict[str, Any]


def verify(bundle_path: Path | str, data: str | Path | None = None, variant: str | None = None) -> Verified:
    """Return what the shipped bytes say; `ok` is False when anything disagrees.

    Args:
        bundle_path: Folder or .zip.
        data: Any source of the catalogue; its official test part, else the test part of the bundle's own split.
        variant: The default one without.

    Raises:
        BundleError: A hash does not match, or it is no bundle.
        DataError: The data cannot be read, or its classes are not the bundle's.
    """
    bundle = Bundle.open(Path(bundle_path))
    return verify_bundle(bundle, data, variant)


def verify_bundle(bundle: Bundle, data: str | Path | None = None, variant: str | None = None) -> Verified:
    """Return the same for an opened bundle. Raises BundleError, DataError."""
    return verify_and_score(bundle, data, variant)[0]


def verify_and_score(
    bundle: Bundle, data: str | Path | None = None, variant: str | None = None
) -> tuple[Verified, Accuracy | None]:
    """Return the same, and with data the accuracy as a bundle records it. Raises BundleError, DataError."""
    scored: Accuracy | None = None
    chosen = bundle.variant(variant)
    compile_if_ours(bundle, chosen)
    predictor = Predictor(bundle, variant=chosen.name, threads=usable_cores())
    facts = {**_counted(bundle, chosen), **_golden(bundle, chosen, predictor)}
    failures = [] if facts["golden_ok"] else [_golden_failure(facts)]
    if data is not None:
        measured = _on_data(bundle, chosen, predictor, data)
        failures += measured.pop("failures")
        scored = measured.pop("scored")
        facts |= measured
    verified = Verified(
        name=bundle.name,
        variant=chosen.name,
        format=chosen.format,
        precision=chosen.precision,
        backend=chosen.backend,
        classes=bundle.classes,
        size_bytes=chosen.size_bytes,
        ok=not failures,
        failures=tuple(failures),
        conditions=environment(),
        **facts,
    )
    return verified, scored


def _counted(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    """Count the graph: of another format that is the graph it was converted from, which computes the same."""
    if variant.format != "onnx" and variant.source is None:
        raise BundleError(
            f"the variant {variant.name!r} is a {variant.format!r} file and bundle.json names no source; its cost "
            "cannot be counted",
            do="convert it again with flyweight convert, or verify an onnx variant",
        )
    cost = count(bundle.counted(variant))
    return {"params": cost.params, "macs": cost.macs, "peak_activation_bytes": cost.peak_activation_bytes}


def _golden(bundle: Bundle, variant: Variant, predictor: Predictor) -> dict[str, Any]:
    images, expected = bundle.golden(variant)
    found = predictor.logits(images)
    told = compare(found, expected, variant.tolerance)
    return {f"golden_{key}": value for key, value in told.items()}


def _golden_failure(facts: dict[str, Any]) -> str:
    return (
        f"golden vectors: the largest difference of a logit is {facts['golden_max_error']}, the tolerance "
        f"{facts['golden_tolerance']} ({facts['golden_n']} images)"
    )


def _on_data(bundle: Bundle, variant: Variant, predictor: Predictor, data: str | Path) -> dict[str, Any]:
    from flyweight.data.sources import load_data

    dataset = load_data(data, group=bundle.split.get("group"))
    _same_classes(bundle, dataset)
    part, indices = sealed_part(bundle, dataset)
    logits, readable, unreadable = logits_of(predictor, dataset, indices)
    if not len(readable):
        raise DataError(
            f"none of the {len(indices)} test images of {str(data)!r} can be read", do="flyweight data check says why"
        )
    labels = np.array([bundle.classes.index(dataset.classes[i]) for i in dataset.labels[readable]])
    found = score(logits, labels, bundle.classes, bundle.temperature)
    matches = _matches(found, variant.accuracy)
    # With the recorded accuracy of the recorded number of images, the unreadable ones are those left out then too.
    failures = [] if matches else [row["reason"] for row in unreadable]
    if matches is False:
        failures.append(
            f"accuracy {found.top1:.4f} of {found.n} images; the bundle recorded "
            f"{_recorded(variant.accuracy)} of {(variant.accuracy or {}).get('n')}"
        )
    return {
        **_numbers(found),
        "data": str(data),
        "part": part,
        "matches_card": matches,
        "unreadable": unreadable,
        "failures": failures,
        "scored": found,
    }


def sealed_part(bundle: Bundle, dataset: Dataset) -> tuple[str, np.ndarray]:
    """Return which part is the test, and its indices: the official one, else that of the bundle's own split.

    Raises:
        DataError: The part is empty, the bundle recorded no split, or one by groups that the data lacks.
    """
    if not bundle.split and (dataset.parts is None or not (dataset.parts == "test").any()):
        raise DataError(
            f"the data {dataset.name!r} has no official test part, and the bundle {bundle.name!r} recorded no split",
            do="give a data set with a test part (a folder test/ with one folder per class)",
        )
    if dataset.parts is not None and (dataset.parts == "test").any():
        return "official test part", np.flatnonzero(dataset.parts == "test")
    if bundle.split.get("grouped") and dataset.groups is None:
        raise DataError(
            f"the bundle {bundle.name!r} was split by groups (one person, video, object); {dataset.name!r} has none",
            do="give the data with its group column; without it training images would end up in the test part",
        )
    from flyweight.data.split import split_from_rule

    indices = split_from_rule(dataset, bundle.split).test
    if not len(indices):
        raise DataError(
            f"no image of {dataset.name!r} falls into the test part of the split {bundle.split}",
            do="give the data that the bundle was trained on, or a data set with a test part",
        )
    return "test part of the bundle's split", indices


def logits_of(
    predictor: Predictor, dataset: Dataset, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[dict[str, str], ...]]:
    """Return logits (M, K) of the readable images, their indices (M,), and the unreadable ones with the reason."""
    return image_logits(predictor, dataset.images, indices)


def image_logits(
    predictor: Predictor, images: ImageFiles | ImageArray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[dict[str, str], ...]]:
    """Return the same of images without labels."""

    def pixels(i: int) -> np.ndarray | DataError:
        try:
            return predictor.load(images.read(i), images.key(i))
        except DataError as error:
            return error

    logits, readable, unreadable = [], [], []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(indices), 4 * BATCH):
            chunk = [int(i) for i in indices[start : start + 4 * BATCH]]
            loaded = list(zip(chunk, pool.map(pixels, chunk), strict=True))
            good = [(i, item) for i, item in loaded if isinstance(item, np.ndarray)]
            unreadable += [
                {"image": images.key(i), "reason": item.what} for i, item in loaded if isinstance(item, DataError)
            ]
            readable += [i for i, _ in good]
            if good:
                logits.append(predictor.logits(np.stack([item for _, item in good])))
    empty = np.empty((0, len(predictor.bundle.classes)), np.float32)
    return np.concatenate([empty, *logits]), np.array(readable, np.int64), tuple(unreadable)


def _same_classes(bundle: Bundle, dataset: Dataset) -> None:
    """Labels are matched by class name, so that another order of the same names is no mistake."""
    unknown = sorted(set(dataset.classes) - set(bundle.classes))
    if unknown:
        raise DataError(
            f"the data {dataset.name!r} has the class {unknown[0]!r}, which the bundle {bundle.name!r} does not know "
            f"({len(unknown)} such); it knows {', '.join(bundle.classes[:10])}",
            do="give data with the bundle's class names, or train on the new classes: flyweight fit --from BUNDLE",
        )


def _numbers(found: Accuracy) -> dict[str, Any]:
    return {
        "accuracy": found.top1,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "n": found.n,
        "top5": found.top5,
        "balanced_accuracy": found.balanced,
        "macro_f1": found.macro_f1,
        "min_recall": found.min_recall,
        "ece": found.ece,
        "nll": found.nll,
        "per_class": tuple(dict(vars(row)) for row in found.per_class),
        "confusion": found.confusion,
    }


def _matches(found: Accuracy, recorded: dict[str, Any] | None) -> bool | None:
    """Compare with the recorded accuracy; only a test of the same size is the same test."""
    value = _recorded(recorded)
    if value is None or (recorded or {}).get("n") != found.n:
        return None
    return abs(found.top1 - value) <= CARD_TOLERANCE


def _recorded(recorded: dict[str, Any] | None) -> float | None:
    value = (recorded or {}).get("accuracy", (recorded or {}).get("top1"))
    return float(value) if isinstance(value, (int, float)) else None
