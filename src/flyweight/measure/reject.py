"""The reject option: which confidence an answer needs, what that costs on known images, and what it keeps out.

A classifier of ten kinds of things gives every picture one of the ten. Below a threshold of its calibrated confidence
it can say nothing instead. The threshold is taken from validation images, so that a stated share of them is still
answered; images of other things show how much of what it should not answer it then refuses. Source: the baseline of
Hendrycks and Gimpel 2017 (arXiv:1610.02136), the largest softmax probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from flyweight.data.dataset import Dataset, ImageArray, ImageFiles
from flyweight.data.sources import load_data
from flyweight.data.sources.folder import images_below
from flyweight.errors import DataError
from flyweight.measure.statistics import midranks, wilson
from flyweight.measure.trial import decided_by
from flyweight.measure.verify import image_logits, logits_of
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.calibration import softmax
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.predict import Predictor

SHARES = (0.99, 0.95, 0.9, 0.8)  # of the validation images, that are still answered
MOST = 10_000  # images of another data set


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Share(_Row):
    """A share of images (0 to 1) with its Wilson 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Pictures:
    """Images of other things, labelled or not.

    Attributes:
        classes: Their names, where they have any.
    """

    name: str
    images: ImageFiles | ImageArray
    indices: NDArray[np.int64]
    classes: tuple[str, ...] = ()


def pictures(source: str) -> Pictures:
    """Return up to 10,000 images of a data set (of its test part, if it has one), or of a folder of any layout.

    Raises:
        DataError: There are none.
    """
    folder = Path(source).expanduser()
    try:
        dataset = load_data(source)
    except DataError:
        files = tuple(sorted(images_below(folder), key=str)) if folder.is_dir() else ()
        if not files:
            raise
        return Pictures(folder.name, ImageFiles(folder, files), _some(np.arange(len(files))))
    test = np.flatnonzero(dataset.parts == "test") if dataset.parts is not None else np.empty(0, np.int64)
    found = test if len(test) else np.arange(len(dataset.labels))
    return Pictures(dataset.name, dataset.images, _some(found), dataset.classes)


class Unlike(_Row):
    """Another data set.

    Attributes:
        auroc: How often an image of the bundle's classes gets a higher confidence than one of these; 0.5 is chance.
        answered: By threshold, in the order of `Rejection.thresholds`: share that gets an answer all the same.
    """

    name: str
    n: int
    auroc: float
    answered: tuple[Share, ...]


class Threshold(_Row):
    """One threshold.

    Attributes:
        share: Of the validation images it was chosen to answer.
        answered: Share of the images of `Rejection.part` that it answers.
        accuracy: Of the answers it gives; None where it gives none.
    """

    share: float
    confidence: float
    answered: Share
    accuracy: Share | None


class Rejection(_Row):
    """What `flyweight reject --json` prints.

    Attributes:
        part: What `thresholds` were counted on; they were chosen on the validation part in any case.
        accuracy: Without a threshold.
    """

    name: str
    variant: str
    part: str
    accuracy: Share
    thresholds: tuple[Threshold, ...]
    unlike: tuple[Unlike, ...]

    def at(self, share: float) -> Threshold:
        """Return the threshold that was chosen to answer so many of the validation images."""
        return next(one for one in self.thresholds if one.share == share)


def rejection(
    bundle: Bundle,
    dataset: Dataset,
    unlike: Sequence[Pictures] = (),
    *,
    shares: Sequence[float] = SHARES,
    part: Literal["val", "test"] = "val",
    variant: str | None = None,
) -> Rejection:
    """Return what thresholds on the confidence do to known and to other images.

    Args:
        dataset: What the bundle was trained on.
        unlike: Images that belong to none of its classes.
        shares: Of the validation images that are to be answered, one threshold each.
        part: Where the cost is counted; test is the sealed part, which the caller logs as opened.

    Raises:
        DataError: There are no such images, or another data set has classes of the bundle.
    """
    for other in unlike:
        shared = sorted(set(other.classes) & set(bundle.classes))
        if shared:
            raise DataError(
                f"{other.name!r} has the class {shared[0]!r}, which the bundle {bundle.name!r} knows",
                do="give images that belong to none of its classes",
            )
    predictor = Predictor(bundle, variant=variant, threads=usable_cores())
    _, chosen_on = decided_by(bundle, dataset, "val")
    val, right = _answers(predictor, dataset, chosen_on)
    confidences = {share: float(np.quantile(val, 1 - share, method="lower")) for share in shares}
    where = "validation part"
    if part == "test":
        where, counted_on = decided_by(bundle, dataset, "test")
        val, right = _answers(predictor, dataset, counted_on)
    others = [(other.name, _confidence(predictor, other)) for other in unlike]
    return Rejection(
        name=bundle.name,
        variant=predictor.variant.name,
        part=where,
        accuracy=_share(right),
        thresholds=tuple(
            Threshold(
                share=share,
                confidence=confidence,
                answered=_share(val >= confidence),
                accuracy=_share(right[val >= confidence]) if (val >= confidence).any() else None,
            )
            for share, confidence in confidences.items()
        ),
        unlike=tuple(
            Unlike(
                name=name,
                n=len(found),
                auroc=auroc(val, found),
                answered=tuple(_share(found >= confidence) for confidence in confidences.values()),
            )
            for name, found in others
        ),
    )


def auroc(known: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return how often a value of `known` is above one of `other`, ties counted half."""
    ranks = midranks(np.concatenate([known, other]).tolist())
    above = float(ranks[: len(known)].sum()) - len(known) * (len(known) + 1) / 2
    return above / (len(known) * len(other))


def _answers(
    predictor: Predictor, dataset: Dataset, indices: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of each readable image, and whether its class is the right one."""
    logits, readable, _ = logits_of(predictor, dataset, indices)
    if not len(readable):
        raise DataError(f"none of the {len(indices)} images of {dataset.name!r} can be read", do="flyweight data check")
    classes = predictor.bundle.classes
    probs = softmax(logits, predictor.bundle.temperature)
    called = [classes[index] for index in probs.argmax(axis=1)]
    right = np.array([dataset.classes[label] for label in dataset.labels[readable]]) == np.array(called)
    return np.asarray(probs.max(axis=1), np.float64), right


def _confidence(predictor: Predictor, other: Pictures) -> NDArray[np.float64]:
    logits, readable, _ = image_logits(predictor, other.images, other.indices)
    if not len(readable):
        raise DataError(f"none of the {len(other.indices)} images of {other.name!r} can be read", do="name others")
    return np.asarray(softmax(logits, predictor.bundle.temperature).max(axis=1), np.float64)


def _some(found: NDArray[np.int64]) -> NDArray[np.int64]:
    return found[np.linspace(0, len(found) - 1, min(MOST, len(found))).astype(np.int64)]


def _share(found: NDArray[np.bool_]) -> Share:
    hits = int(found.sum())
    low, high = wilson(hits, len(found))
    return Share(value=hits / len(found), low=low, high=high, n=len(found))
