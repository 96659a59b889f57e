"""What the networks of a comparison cost on this machine, as files: latency side by side, memory of a fresh process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flyweight.files import write_json
from flyweight.measure.speed import time_models
from flyweight.runtime.environment import environment
from flyweight.runtime.memory import peak_memory
from flyweight.studies.study import Study, Trial
from flyweight.studies.trial import MODEL, Place

DEPLOYED = "deployed.json"
BACKEND = "onnxruntime"


def measure_deployed(
    study: Study,
    order: Sequence[Trial],
    place: Place,
    *,
    threads: int = 1,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what each network's file costs here, by "dataset/arm"; written to `deployed.json` and not taken twice.

    Taken again where the processor or the runtime is another. One file stands for all seeds of an arm: they differ in
    weights alone. Arms of one data set with the same network are one file too. Latencies are interleaved, model only,
    batch 1.
    """
    files = _files(study, order, place)
    conditions = environment()
    here = {"cpu": conditions["cpu"], "onnxruntime": conditions["versions"].get("onnxruntime"), "threads": threads}
    asked = {name: hashlib.sha256(_graph_of(file)).hexdigest()[:16] for name, file in files.items()}
    known = read_deployed(place)
    if known and known["asked"] == asked and known["here"] == here:
        costs: dict[str, dict[str, Any]] = known["costs"]
        return costs
    if not files:
        return {}
    by_graph = {asked[name]: file for name, file in files.items()}
    timings = time_models(list(by_graph.values()), threads=threads, quick=quick, progress=progress)
    found: dict[str, dict[str, Any]] = {}
    for (graph, file), timing in zip(by_graph.items(), timings, strict=True):
        memory = peak_memory(file, threads=threads)
        found[graph] = {
            "backend": BACKEND,
            "threads": threads,
            "latency": timing.as_dict(),
            "memory_bytes": memory.peak_bytes,
            "memory_increment_bytes": memory.increment_bytes,
        }
    costs = {name: found[asked[name]] for name in files}
    write_json(place.out / DEPLOYED, {"asked": asked, "here": here, "costs": costs, "conditions": conditions})
    return costs


def read_deployed(place: Place) -> dict[str, Any] | None:
    """Return what an earlier call wrote; None where there was none."""
    file = place.out / DEPLOYED
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def _files(study: Study, order: Sequence[Trial], place: Place) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for trial in order:
        file = place.of(trial) / MODEL
        if place.result(trial) is not None and file.is_file():
            found.setdefault(f"{trial.dataset}/{trial.arm}", file)
    return found


def _graph_of(file: Path) -> bytes:
    """Return the graph without its weights: equal for networks that differ in training alone."""
    import onnx

    model = onnx.load(file)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    del model.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content
