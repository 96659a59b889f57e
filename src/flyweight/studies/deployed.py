"""What the networks of a comparison cost on this machine, as files: latency side by side, memory of a fresh process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import FlyweightError
from flyweight.files import write_json
from flyweight.measure.latency import FULL, QUICK, model_spec, time_specs
from flyweight.runtime.backends import DEFAULT, installed, load_backend
from flyweight.runtime.environment import environment
from flyweight.runtime.memory import REPEATS, peak_memory
from flyweight.runtime.timing import MODEL as MODEL_ONLY
from flyweight.studies.study import Study, Trial
from flyweight.studies.trial import MODEL, Place

DEPLOYED = "deployed.json"
LAYOUT = 2


def measure_deployed(
    study: Study,
    order: Sequence[Trial],
    place: Place,
    *,
    threads: int = 1,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Return what each network's file costs here on each installed backend, the default first, by "dataset/arm".

    Written to `deployed.json` and not taken twice. Taken again where the processor or a backend is another; what
    another processor took stays beside it. One file stands for all seeds of an arm: they differ in weights alone.
    Arms of one data set with the same network are one file too. Latencies are interleaved, model only, batch 1.
    """
    files = _files(study, order, place)
    conditions = environment()
    backends = installed()
    versions = {name: conditions["versions"].get(name) for name in backends}
    here = {"cpu": conditions["cpu"], "backends": versions, "threads": threads}
    asked = {name: hashlib.sha256(_graph_of(file)).hexdigest()[:16] for name, file in files.items()}
    known = read_deployed(place)
    if known and known["asked"] == asked and known["here"] == here:
        costs: dict[str, list[dict[str, Any]]] = known["costs"]
        return costs
    if not files:
        return {}
    by_graph = {asked[name]: file for name, file in files.items()}
    asked_of = [(graph, name) for graph, file in by_graph.items() for name in backends if _runs(name, file)]
    specs = {f"{graph} {backend}": model_spec(by_graph[graph], threads, backend) for graph, backend in asked_of}
    timings = time_specs(specs, QUICK if quick else FULL, progress=progress)
    found: dict[str, list[dict[str, Any]]] = {graph: [] for graph in by_graph}
    for name, (graph, backend) in zip(specs, asked_of, strict=True):
        memory = peak_memory(by_graph[graph], threads=threads, backend=backend, repeats=1 if quick else REPEATS)
        found[graph].append(
            {
                "backend": backend,
                "threads": threads,
                "latency": timings[name][MODEL_ONLY].as_dict(),
                "memory_bytes": memory.peak_bytes,
                "memory_increment_bytes": memory.increment_bytes,
            }
        )
    costs = {name: found[asked[name]] for name in files}
    record = {"asked": asked, "here": here, "costs": costs, "conditions": conditions}
    others = [one for one in records_of(known) if _machine(one) != _machine(record)]
    write_json(place.out / DEPLOYED, {"layout": LAYOUT, **record, "others": others})
    return costs


def records_of(deployed: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return what each machine measured, the last one first: `asked` (graph by file), `here`, `costs`, `conditions`."""
    if deployed is None:
        return []
    keys = ("asked", "here", "costs", "conditions")
    return [{key: deployed[key] for key in keys}, *deployed.get("others", [])]


def graphs_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the graph that stands for each "dataset/arm" of a record: equal where one file was timed for both."""
    return dict(record["asked"])


def _machine(record: Mapping[str, Any]) -> tuple[str, int]:
    return record["here"]["cpu"], record["here"]["threads"]


def _runs(backend: str, file: Path) -> bool:
    """True where the backend is the default one, which must, or runs the file: hours of training do not hang on it."""
    if backend == DEFAULT:
        return True
    try:
        engine = load_backend(backend, file)
        engine.run(np.zeros((1, *engine.shape), np.uint8))
    except FlyweightError:
        return False
    return True


def read_deployed(place: Place) -> dict[str, Any] | None:
    """Return what an earlier call wrote; None where there was none, or an older version wrote it."""
    file = place.out / DEPLOYED
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found if found.get("layout") == LAYOUT else None


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
