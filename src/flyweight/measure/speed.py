"""`flyweight measure`: latency by three clocks, throughput, memory and size of shipped bytes on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from flyweight.errors import BundleError
from flyweight.export.c.check import compile_if_ours
from flyweight.measure.latency import FULL, QUICK, LatencyResult, model_spec, time_specs
from flyweight.measure.verify import Verified, verify_bundle
from flyweight.runtime.bundle import GOLDEN_IMAGES, Bundle
from flyweight.runtime.memory import REPEATS, peak_memory
from flyweight.runtime.timing import ENCODED, MODEL, PREPROCESS, Effort, Spec, time_in_fresh_process

BATCHES = (1, 8, 32, 128)
PHOTO_SIZE = (640, 480)  # what the clocks that preprocess begin with
BATCH_EFFORT = Effort(samples=50, enough=5, soft_seconds=0.4, hard_seconds=4.0, warmup_seconds=0.3)


class Throughput(BaseModel):
    """Images per second at a batch size: the images of `n` runs of whole batches over the time of these runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    batch: int
    images_per_second: float
    n: int


class Measurement(Verified):
    """What `flyweight measure --json` prints: all of `verify`, and what this machine's clock and memory say.

    Attributes:
        latency_p50_ms: Model only, batch 1; as p90 and p99 null with a reason when there are too few samples.
        latency: By clock (`model`, `preprocess_model`, `encoded`): quantiles with intervals and how they were taken.
        noise_floor: Relative difference that this machine shows between this file and itself; smaller differences
            between two files mean nothing here.
        throughput: Images per second by batch size, each from its own runs.
        memory_peak_bytes: Of a fresh process that classifies single images; `increment` is over an empty runner.
    """

    threads: int
    quick: bool
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    latency_p50_reason: str | None = None
    latency_p90_reason: str | None = None
    latency_p99_reason: str | None = None
    latency_n: int
    latency: dict[str, dict[str, Any]]
    noise_floor: float | None
    throughput: tuple[Throughput, ...]
    memory_peak_bytes: int
    memory_empty_bytes: int
    memory_increment_bytes: int
    photo: str

    def budget_values(self) -> dict[str, float | None]:
        """Return the values a budget checks: ms, bytes, counts."""
        return {
            "latency_p50": self.latency_p50_ms,
            "latency_p90": self.latency_p90_ms,
            "latency_p99": self.latency_p99_ms,
            "size": float(self.size_bytes),
            "memory": float(self.memory_peak_bytes),
            "memory_increment": float(self.memory_increment_bytes),
            "peak_activation": float(self.peak_activation_bytes),
            "params": float(self.params),
            "macs": float(self.macs),
        }


def measure(
    bundle_path: Path | str,
    *,
    threads: int = 1,
    variant: str | None = None,
    data: str | Path | None = None,
    quick: bool = False,
) -> Measurement:
    """Return what a bundle costs on this machine; with `data` its accuracy too.

    Args:
        bundle_path: Folder or .zip.
        threads: Of the backend.
        quick: Three short processes instead of five, without the noise floor; for a first look.

    Raises:
        BundleError: Damaged, or the file does not run here.
        DataError: As `verify`.
    """
    if threads < 1:
        raise BundleError(f"threads is {threads}", do="measure with --threads 1 or more")
    bundle = Bundle.open(Path(bundle_path))
    verified = verify_bundle(bundle, data, variant)
    chosen = bundle.variant(variant)
    plan = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="flyweight-measure-") as folder:
        spec = _bundle_spec(bundle, chosen.file, chosen.backend, threads, Path(folder))
        clocks = time_specs({bundle.name: spec}, plan)[bundle.name]
        batches = time_in_fresh_process(replace(spec, clocks=(), batches=BATCHES, effort=BATCH_EFFORT))["throughput"]
    memory = peak_memory(chosen.file, threads=threads, backend=chosen.backend, repeats=1 if quick else REPEATS)
    return Measurement(
        **verified.model_dump(),
        **_latencies(clocks),
        threads=threads,
        quick=quick,
        throughput=batches,
        memory_peak_bytes=memory.peak_bytes,
        memory_empty_bytes=memory.empty_bytes,
        memory_increment_bytes=memory.increment_bytes,
        photo=f"JPEG, quality 90, {PHOTO_SIZE[0]}×{PHOTO_SIZE[1]} px, enlarged from a golden image",
    )


def time_models(
    paths: Sequence[Path],
    *,
    threads: int = 1,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[LatencyResult]:
    """Return the model-only latency of bundles or bare .onnx files, interleaved, in the order given.

    Args:
        quick: Under two seconds a model, three processes each, no noise floor.
        progress: Called with (processes done, processes in all).

    Raises:
        BundleError: A file cannot be loaded.
    """
    if not paths:
        return []
    # The bundles are kept open: one from a .zip lies in a folder that goes with it.
    opened = [Bundle.open(path) if _is_bundle(Path(path)) else None for path in paths]
    specs = {
        f"{i}:{path}": model_spec(Path(path), threads) if bundle is None else _variant_spec(bundle, threads)
        for i, (path, bundle) in enumerate(zip(paths, opened, strict=True))
    }
    found = time_specs(specs, QUICK if quick else FULL, progress=progress)
    return [replace(found[name][MODEL], name=str(path)) for name, path in zip(specs, paths, strict=True)]


def _is_bundle(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip"


def _variant_spec(bundle: Bundle, threads: int) -> Spec:
    chosen = bundle.variant()
    compile_if_ours(bundle, chosen)
    return Spec(str(chosen.file), chosen.backend, threads, images=str(bundle.path / GOLDEN_IMAGES))


def _bundle_spec(bundle: Bundle, file: Path, backend: str, threads: int, folder: Path) -> Spec:
    return Spec(
        file=str(file),
        backend=backend,
        threads=threads,
        clocks=(MODEL, PREPROCESS, ENCODED),
        images=str(bundle.path / GOLDEN_IMAGES),
        photo=str(write_photo(bundle, folder / "photo.jpg")),
        preprocess=bundle.preprocess.to_json(),
    )


def write_photo(bundle: Bundle, path: Path) -> Path:
    """Write a camera-sized JPEG made from a golden image, so that decoding and resizing have real work."""
    golden, _ = bundle.golden(bundle.variant())
    planes = golden[0, :3] if bundle.preprocess.channels >= 3 else golden[0, :1]
    pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def _latencies(clocks: dict[str, LatencyResult]) -> dict[str, Any]:
    model = clocks[MODEL]
    flat: dict[str, Any] = {}
    for q in (0.5, 0.9, 0.99):
        quantile = model.quantile(q)
        flat[f"latency_p{q * 100:g}_ms"] = quantile.ms
        flat[f"latency_p{q * 100:g}_reason"] = quantile.reason
    return {
        **flat,
        "latency_n": model.n,
        "latency": {clock: result.as_dict() for clock, result in clocks.items()},
        "noise_floor": model.noise_floor,
    }


__all__ = ["Measurement", "measure", "time_models"]
