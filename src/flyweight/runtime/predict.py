"""Predict: images in, classes with calibrated confidence out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import BundleError, DataError
from flyweight.runtime.backends import load_backend
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.calibration import softmax
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.preprocess import SUFFIXES, Source, load

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        source: The image's name.
        top: (class, confidence) pairs, most likely first; empty when the image could not be read.
        rejected: The confidence is below the bundle's threshold: the answer should not be used.
        error: Why the image could not be read, or None.
    """

    source: str
    top: tuple[tuple[str, float], ...]
    rejected: bool = False
    error: DataError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `flyweight predict --json` prints on one line."""
        if self.error is not None:
            return {"source": self.source, **self.error.as_dict()}
        label, confidence = self.top[0]
        top = [{"class": name, "confidence": value} for name, value in self.top]
        answer = {"class": None if self.rejected else label, "confidence": confidence, "rejected": self.rejected}
        return {"source": self.source, **answer, "top": top}


class Predictor:
    """A bundle's variant, loaded and ready.

    Args:
        bundle: An opened bundle, or its path.
        variant: Name of the variant; the default one without.
        threads: Of the backend; those that the variant was measured fastest with, or one, without.
        backend: Another backend than the one the variant names.
        reject_threshold: Another threshold than the bundle's.

    Raises:
        BundleError: As `Bundle.open`, `Bundle.variant` and `load_backend`.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        *,
        variant: str | None = None,
        threads: int | None = None,
        backend: str | None = None,
        reject_threshold: float | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
        self.variant = self.bundle.variant(variant)
        self.backend = load_backend(
            backend or self.variant.backend, self.variant.file, threads or self.variant.threads or 1
        )
        self._check_shapes()
        self.threshold = self.bundle.reject_threshold if reject_threshold is None else reject_threshold

    def _check_shapes(self) -> None:
        preprocess, classes = self.bundle.preprocess, self.bundle.classes
        wanted = (preprocess.channels, preprocess.image_size, preprocess.image_size)
        gives = self.backend.run(np.zeros((1, *self.backend.shape), np.uint8)).shape
        if self.backend.shape != wanted or gives != (1, len(classes)):
            raise BundleError(
                f"{self.variant.file.name!r} takes {self.backend.shape} and gives {gives}; bundle.json says {wanted} "
                f"and {len(classes)} classes",
                do="export again",
            )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8, in batches."""
        parts = [self.backend.run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.bundle.classes)), np.float32)

    def load(self, source: Source, name: str | None = None) -> np.ndarray:
        """Return one image as the network takes it, (C, S, S) uint8. Raises DataError."""
        pixels = load(source, self.bundle.preprocess, name=name)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def predict(self, sources: Iterable[Source], top_k: int = 5) -> Iterator[Prediction]:
        """Yield one prediction per source, in order; an unreadable image yields one with its error."""
        remaining = iter(sources)
        with ThreadPoolExecutor(usable_cores()) as pool:
            while chunk := list(islice(remaining, BATCH)):
                yield from self._predict_batch(chunk, list(pool.map(self._try_load, chunk)), top_k)

    def _try_load(self, source: Source) -> np.ndarray | DataError:
        try:
            return self.load(source, source_name(source))
        except DataError as error:
            return error

    def _predict_batch(
        self, sources: list[Source], loaded: list[np.ndarray | DataError], top_k: int
    ) -> Iterator[Prediction]:
        readable = [item for item in loaded if isinstance(item, np.ndarray)]
        probs = iter(softmax(self.backend.run(np.stack(readable)), self.bundle.temperature) if readable else ())
        for source, item in zip(sources, loaded, strict=True):
            if isinstance(item, DataError):
                yield Prediction(source_name(source), (), error=item)
            else:
                yield self._prediction(source_name(source), next(probs), top_k)

    def answer(self, name: str, logits: np.ndarray, top_k: int = 5) -> Prediction:
        """Return what logits (K,) of one image say."""
        return self._prediction(name, softmax(logits[None], self.bundle.temperature)[0], top_k)

    def _prediction(self, name: str, probs: np.ndarray, top_k: int) -> Prediction:
        # Stable: of two equal classes the one that comes first, on every machine.
        order = np.argsort(-probs, kind="stable")[:top_k]
        top = tuple((self.bundle.classes[i], float(probs[i])) for i in order)
        return Prediction(name, top, rejected=self.threshold is not None and top[0][1] < self.threshold)


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files, and of each folder the images at any depth, by name.

    Raises:
        DataError: A folder holds no image.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise DataError(
                f"the folder {str(path)!r} holds no image", do=f"name a folder with one of {' '.join(sorted(SUFFIXES))}"
            )
        yield from found


def source_name(source: Source) -> str:
    """Return what a source is called in results: its path, or what it is."""
    if isinstance(source, bytes):
        return "-"
    return f"array{source.shape}" if isinstance(source, np.ndarray) else str(source)
