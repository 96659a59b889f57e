"""The time of a file with an early exit: images that leave early and those that do not are timed apart.

Every process runs the same few images, so what processes differ by does not tell how many others would leave early.
Each kind is therefore timed by itself and weighed by its share of all images that decided; how well that share is known
is part of the interval.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from flyweight.errors import BundleError
from flyweight.measure.latency import FULL, QUICK, Clock, LatencyResult, time_specs
from flyweight.measure.statistics import Interval
from flyweight.runtime.timing import MODEL, Spec, time_in_fresh_process

SURE = "exit.sure"  # of a joined graph: (N, 1), whether an image is answered early
EARLY, LATE, ALL = "early", "late", "all"


@dataclass(frozen=True)
class Kinds:
    """Images that a file treats alike, by what it does with them.

    Attributes:
        images: (N, C, S, S) uint8 to time, by kind: early and late, or all.
        leaving: How many of the images that decided leave early, and how many there were; None without an exit.
    """

    images: Mapping[str, NDArray[np.uint8]]
    leaving: tuple[int, int] | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean time in ms.

    Attributes:
        parts: Variance and degrees of freedom of each source of error, in ms².
    """

    ms: float
    parts: Sequence[tuple[float, float]] = field(default=())


def leaves_early(file: Path, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of the images (N, C, S, S) an ONNX file answers early, as (N,).

    Raises:
        BundleError: It has no early exit.
    """
    model = onnx.load_model_from_string(Path(file).read_bytes())
    if not any(SURE in node.output for node in model.graph.node):
        raise BundleError(
            f"{Path(file).name!r} branches, and not by an early exit: how often is not known",
            do="hold its trial without a clock: --timing none",
        )
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(SURE, onnx.TensorProto.BOOL, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(found, bool).reshape(-1)


def time_kinds(
    sides: Mapping[str, tuple[Spec, Kinds]],
    *,
    quick: bool,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock = time_in_fresh_process,
) -> dict[str, dict[str, LatencyResult]]:
    """Return the latency of each file on each kind of its images, all timed in turn.

    Args:
        sides: What is timed and on what, by name.
        clock: As `time_specs`.
    """
    with tempfile.TemporaryDirectory(prefix="flyweight-trial-") as folder:
        specs: dict[str, Spec] = {}
        for side, (spec, kinds) in sides.items():
            for kind, images in kinds.images.items():
                file = Path(folder) / f"{side}-{kind}.npy"
                np.save(file, images, allow_pickle=False)
                specs[f"{side} {kind}"] = replace(spec, images=str(file))
        found = time_specs(specs, QUICK if quick else FULL, progress=progress, clock=clock)
    return {side: {kind: found[f"{side} {kind}"][MODEL] for kind in kinds.images} for side, (_, kinds) in sides.items()}


def mean_time(results: Mapping[str, LatencyResult], leaving: tuple[int, int] | None) -> Estimate:
    """Return the mean time over all images from the latencies by kind, and how many of how many images leave early."""
    means = {kind: [float(np.mean(samples)) for samples in one.samples_ms] for kind, one in results.items()}
    share = leaving[0] / leaving[1] if leaving else 1.0
    weights = {EARLY: share, LATE: 1.0 - share, ALL: 1.0}
    if len(means) == 1:
        weights = dict.fromkeys(means, 1.0)
    ms = sum(weights[kind] * float(np.mean(values)) for kind, values in means.items())
    parts = [
        (weights[kind] ** 2 * float(np.var(values, ddof=1)) / len(values), len(values) - 1.0)
        for kind, values in means.items()
    ]
    if leaving and len(means) == 2:
        # Two more of each kind, so that a share near an end has an error too (Agresti and Coull 1998).
        about, n = (leaving[0] + 2) / (leaving[1] + 4), leaving[1] + 4
        apart = float(np.mean(means[EARLY])) - float(np.mean(means[LATE]))
        parts.append((apart**2 * about * (1 - about) / n, n - 1.0))
    return Estimate(ms, tuple(parts))


def ratio_of(first: Estimate, second: Estimate, level: float = 0.95) -> Interval:
    """Return the ratio of two mean times with its interval, on logarithms: degrees of freedom by Satterthwaite 1946."""
    from scipy.stats import t as student

    value = math.log(first.ms / second.ms)
    parts = [(variance / one.ms**2, df) for one in (first, second) for variance, df in one.parts]
    variance = sum(part for part, _ in parts)
    if variance == 0.0:
        return Interval(math.exp(value), math.exp(value), math.exp(value), level)
    df = variance**2 / sum(part**2 / df for part, df in parts if part)
    half = float(student.ppf(0.5 + level / 2, df)) * math.sqrt(variance)
    return Interval(math.exp(value), math.exp(value - half), math.exp(value + half), level)
