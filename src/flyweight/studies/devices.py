"""Which network is fastest on which device: the files of a comparison in order, on every machine that timed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyweight.report.study import DeviceFacts
from flyweight.studies.deployed import graphs_of, records_of


def device_rankings(deployed: Mapping[str, Any] | None, arms: Mapping[str, Sequence[str]]) -> tuple[DeviceFacts, ...]:
    """Return the order of the files by latency, for each data set, machine and backend that timed them.

    Arms whose files are one graph stand there once, under the name of the first.

    Args:
        deployed: What `measure_deployed` wrote; None: nothing yet.
        arms: The arms of each data set.
    """
    found = []
    for record in records_of(deployed):
        here = record["here"]
        for dataset, names in arms.items():
            files = _distinct({name: record["costs"].get(f"{dataset}/{name}", []) for name in names}, record, dataset)
            backends = dict.fromkeys(cost["backend"] for costs in files.values() for cost in costs)
            for backend in backends:
                timed = {
                    name: cost["latency"]["p50"]
                    for name, costs in files.items()
                    for cost in costs
                    if cost["backend"] == backend and cost["latency"]["p50"]["ms"] is not None
                }
                if len(timed) > 1:
                    order = tuple(tied(timed))
                    found.append(
                        DeviceFacts(
                            device=here["cpu"], backend=backend, threads=here["threads"], dataset=dataset, order=order
                        )
                    )
    return tuple(found)


def tied(timed: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return names in the order of their median, fastest first; those whose interval begins before the first of a
    group ends are in that group.
    """
    groups: list[list[str]] = []
    for name in sorted(timed, key=lambda name: timed[name]["ms"]):
        leader = timed[groups[-1][0]] if groups else None
        low = timed[name]["low_ms"]
        if leader is not None and None not in (low, leader["high_ms"]) and low <= leader["high_ms"]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return [tuple(group) for group in groups]


def _distinct(files: Mapping[str, Any], record: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    graphs = graphs_of(record)
    first: dict[str, str] = {}
    for name in files:
        first.setdefault(graphs.get(f"{dataset}/{name}", name), name)
    return {name: files[name] for name in first.values() if files[name]}
