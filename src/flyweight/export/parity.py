"""Does the shipped file say what the trained network says? Compared on real images, through the runtime that ships."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flyweight.errors import ExportError
from flyweight.models.adapt import evaluating
from flyweight.models.quantize import without_rounding
from flyweight.runtime.backends import DEFAULT, Backend, load_backend

AGREEMENT = 0.999  # least share of images with the same top-1 class
# Of a logit, relative to the largest one when that is above 1. fp32: room for another order of summation; int8: a value
# between two levels may be rounded to either, and the next layers carry that on; fp16 and bf16 keep 11 and 8 bits.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.01, "bf16": 0.05, "int8": 0.05}
# Least share of images with the same top-1 class as the float file, for a file that was converted without training.
# A floor under which something is broken; whether the accuracy lost is worth it is for a trial to say.
SAME_CLASS = {"fp32": AGREEMENT, "fp16": 0.99, "bf16": 0.98, "int8": 0.9}
# Of what rounding to levels does to a network's answers by itself, the most that its file may differ from it. Two
# evaluations that round a few values differently drift apart as two draws of the same rounding noise do, the deeper the
# network the further, and at most to √2 of its size: so the noise is the measure, and no difference of a single logit.
ROUNDING = 0.5


@dataclass(frozen=True)
class Parity:
    """How far a shipped file is from the network it was made of.

    Attributes:
        n: Images compared.
        max_abs_error: Largest difference of one logit.
        tolerance: What a device's logits may differ by; of a float file also what `max_abs_error` may be.
        top1_agreement: Share of images with the same top-1 class, 0..1; of a float file, ties within the tolerance too.
        rms_error: Root mean square of the differences of logits; None in a bundle of an earlier version.
        rounding: Of an int8 file: the same between the network and itself without rounding of activations.
        rounding_agreement: Of an int8 file: share with the same top-1 class between these two.
    """

    n: int
    max_abs_error: float
    tolerance: float
    top1_agreement: float
    rms_error: float | None = None
    rounding: float | None = None
    rounding_agreement: float | None = None

    @property
    def holds(self) -> bool:
        """True when the file may ship."""
        if self.rounding is None or self.rms_error is None or self.rounding_agreement is None:
            return self.max_abs_error <= self.tolerance and self.top1_agreement >= AGREEMENT
        return self.rms_error <= ROUNDING * self.rounding and self.flipped <= self.flips_allowed

    @property
    def flipped(self) -> int:
        """Images with another top-1 class."""
        return round((1 - self.top1_agreement) * self.n)

    @property
    def flips_allowed(self) -> float:
        """Images of an int8 file that may have another top-1 class: half as many as rounding itself turns, or 1."""
        by_rounding = (1 - (1.0 if self.rounding_agreement is None else self.rounding_agreement)) * self.n
        return max(1.0, (1 - AGREEMENT) * self.n, ROUNDING * by_rounding)

    def to_json(self) -> dict[str, float | int]:
        """Return the numbers there are."""
        return {name: value for name, value in vars(self).items() if value is not None}


def compare(expected: NDArray[np.float32], actual: NDArray[np.float32], precision: str = "fp32") -> Parity:
    """Compare logits (N, K) with logits (N, K) of a file of that precision.

    A top-1 class that differs only because two logits lie within the tolerance is a tie, not a disagreement.
    """
    error = float(np.abs(expected - actual).max(initial=0.0)) if np.isfinite(actual).all() else float("inf")
    tolerance = TOLERANCE[precision] * max(1.0, float(np.abs(expected).max(initial=0.0)))
    first = actual.argmax(axis=1)
    behind = expected.max(axis=1) - np.take_along_axis(expected, first[:, None], axis=1)[:, 0]
    agreement = float(np.mean(behind <= 2 * tolerance)) if len(expected) else 1.0
    return Parity(len(expected), error, tolerance, agreement, rms_error=_rms(expected - actual))


def compare_levels(
    expected: NDArray[np.float32], actual: NDArray[np.float32], unrounded: NDArray[np.float32]
) -> Parity:
    """Compare logits (N, K) of a network on int8 levels with those of its file, measured by what rounding does.

    Args:
        unrounded: Logits of the same network without rounding of its activations.
    """
    plain = compare(expected, actual, "int8")
    same = (expected.argmax(axis=1) == actual.argmax(axis=1)).mean() if len(expected) else 1.0
    by_rounding = (expected.argmax(axis=1) == unrounded.argmax(axis=1)).mean() if len(expected) else 1.0
    return replace(
        plain,
        # On another machine values between two levels turn the other way again: twice what was seen here.
        tolerance=max(plain.tolerance, 2 * plain.max_abs_error)
        if np.isfinite(plain.max_abs_error)
        else plain.tolerance,
        top1_agreement=float(same),
        rounding=_rms(expected - unrounded),
        rounding_agreement=float(by_rounding),
    )


def _rms(difference: NDArray[np.float32]) -> float:
    if not np.isfinite(difference).all():
        return float("inf")
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64)))) if difference.size else 0.0


def compare_converted(expected: NDArray[np.float32], actual: NDArray[np.float32], precision: str) -> Parity:
    """Compare logits (N, K) of the float file with logits (N, K) of one that was converted from it.

    In fp32 as `compare`. In a lower precision the values have moved, and what counts is the top-1 class, ties and all;
    the tolerance is then what another device may differ by from the converted file, not the file from the float one.
    """
    if precision == "fp32":
        return compare(expected, actual)
    error = float(np.abs(expected - actual).max(initial=0.0)) if np.isfinite(actual).all() else float("inf")
    tolerance = TOLERANCE[precision] * max(1.0, float(np.abs(expected).max(initial=0.0)))
    same = float(np.mean(expected.argmax(axis=1) == actual.argmax(axis=1))) if len(expected) else 1.0
    return Parity(len(expected), error, tolerance, same)


def torch_logits(network: nn.Module, images: NDArray[np.uint8], batch_size: int = 256) -> NDArray[np.float32]:
    """Return logits (N, K) of a torch network for images (N, C, S, S), in evaluation mode and float32."""
    device = next(network.parameters()).device
    with evaluating(network), torch.no_grad():
        parts = [
            network(torch.from_numpy(np.ascontiguousarray(images[at : at + batch_size])).to(device)).float().cpu()
            for at in range(0, len(images), batch_size)
        ]
    return torch.cat(parts).numpy()


def file_logits(path: Path, images: NDArray[np.uint8], batch_size: int = 256) -> NDArray[np.float32]:
    """Return logits (N, K) of a shipped ONNX file for images (N, C, S, S), through ONNX Runtime."""
    backend = load_backend(DEFAULT, Path(path))
    return backend_logits(backend, images, batch_size)


def backend_logits(backend: Backend, images: NDArray[np.uint8], batch_size: int = 256) -> NDArray[np.float32]:
    """Return logits (N, K) of a loaded model for images (N, C, S, S)."""
    step = backend.only_batch or batch_size
    return np.concatenate([np.array(backend.run(images[at : at + step])) for at in range(0, len(images), step)])


def check_parity(network: nn.Module, path: Path, images: NDArray[np.uint8], precision: str = "fp32") -> Parity:
    """Return how far the file at `path` is from `network` on images (N, C, S, S) uint8.

    Raises:
        ExportError: Outside the tolerance, or too many top-1 classes differ: the file must not ship.
    """
    expected, actual = torch_logits(network, images), file_logits(path, images)
    if precision == "int8":
        parity = compare_levels(expected, actual, torch_logits(without_rounding(network), images))
    else:
        parity = compare(expected, actual, precision)
    if not parity.holds:
        raise ExportError(
            f"the exported file disagrees with the trained network on {parity.n} images: {_told(parity)}",
            do="do not ship it; check the weights for NaN, or report this with `flyweight doctor`",
        )
    return parity


def _told(parity: Parity) -> str:
    if parity.rounding is None:
        return (
            f"largest difference of a logit {parity.max_abs_error:.3g} (allowed {parity.tolerance:.3g}), same first "
            f"class on {parity.top1_agreement:.2%} (needed {AGREEMENT:.1%})"
        )
    return (
        f"differences of logits of {parity.rms_error:.3g} (root mean square; allowed {ROUNDING * parity.rounding:.3g}, "
        f"half of what rounding to levels does), another top-1 class on {parity.flipped} (allowed "
        f"{int(parity.flips_allowed)})"
    )
