"""Is the clock right? A known 5 ms must be measured as 5 ms, and a file must not be faster than itself.

    python benchmarks/clock.py [--repetitions 100]

Both go through the protocol that `flyweight measure` uses: fresh processes, random order, warm-up, no trimming.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from results_file import Measured, write_results

from flyweight.measure.latency import FULL, Plan, compare, time_specs
from flyweight.measure.statistics import wilson
from flyweight.runtime.timing import MODEL, Effort, Spec

SHORT = Plan(
    FULL.processes, Effort(samples=60, enough=20, soft_seconds=0.05, hard_seconds=2, warmup_seconds=0.1), False
)
SLOWER_REPETITIONS = 10
ASKED = 100  # repetitions of the A/A comparison, as the claim has them


def main() -> None:
    """Measure all three and write results/clock.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=ASKED, help="of the A/A comparison")
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as folder:
        error = busy_wait_error(Path(folder))
        print(f"busy wait of 5 ms: error {error.value:.4f} [{error.low:.4f}, {error.high:.4f}]", flush=True)
        same = no_difference(Path(folder), repetitions)
        print(f"A/A: no difference in {same.value:g} of {same.n}", flush=True)
        slower = slower_found(Path(folder))
        print(f"5.5 ms against 5 ms: slower in {slower.value:g} of {slower.n}")
    if repetitions != ASKED:
        print(f"fewer or more than the {ASKED} repetitions of the claim: nothing is written to results/")
        return
    path = write_results(
        "clock.json",
        {"busy_wait_5ms_error": error, "aa_no_difference_of_100": same},
        seeds=range(repetitions),
        conditions={
            "busy_wait": "|p50 - 5 ms| / 5 ms over 5 fresh processes; low and high from the order-statistic interval",
            "aa": f"{SHORT.processes} fresh processes a side, interleaved in random order, exact rank-sum test at 5 %; "
            "low and high: Wilson 95 % interval, as repetitions",
            "load_average": list(os.getloadavg()),
        },
        details={"ten_percent_slower_found": asdict(slower)},
    )
    print(path)


def busy_wait_error(folder: Path) -> Measured:
    """Measure a backend that spins for 5 ms; the error is that of the median, relative."""
    result = time_specs({"wait": waiting(folder, 5.0)}, Plan(FULL.processes, FULL.effort, False))["wait"][MODEL]
    median = result.quantile(0.5)
    errors = [abs(ms - 5.0) / 5.0 for ms in (median.ms, median.low_ms, median.high_ms) if ms is not None]
    return Measured(errors[0], min(errors), max(errors), result.n)


def no_difference(folder: Path, repetitions: int) -> Measured:
    """Count how often a small network is found no different from itself."""
    path = folder / "model.onnx"
    onnx.save(network(), path)
    spec = Spec(str(path))
    return count_verdicts({"a": spec, "b": spec}, "no difference", repetitions)


def slower_found(folder: Path) -> Measured:
    """Count how often 5.5 ms is found slower than 5 ms: a test that never finds anything would pass the A/A one."""
    return count_verdicts({"5.5": waiting(folder, 5.5), "5": waiting(folder, 5.0)}, "slower", SLOWER_REPETITIONS)


def count_verdicts(specs: dict[str, Spec], wanted: str, repetitions: int) -> Measured:
    """Time two candidates interleaved, `repetitions` times, and count one verdict of the first on the second."""
    hits = 0
    for seed in range(repetitions):
        first, second = (clocks[MODEL] for clocks in time_specs(specs, SHORT, seed=seed).values())
        hits += compare(first, second).verdict == wanted
    low, high = wilson(hits, repetitions)
    return Measured(hits, low * repetitions, high * repetitions, repetitions)


def waiting(folder: Path, milliseconds: float) -> Spec:
    """Return the spec of a model that spins for a known time."""
    path = folder / f"{milliseconds}.json"
    path.write_text(json.dumps({"milliseconds": milliseconds}))
    return Spec(str(path), backend="busy-wait")


def network() -> onnx.ModelProto:
    """Return two convolutions on 3 × 32 × 32, about 1.2 M MACs."""
    random = np.random.default_rng(0)
    weights = {"first": (16, 3, 3, 3), "second": (16, 16, 3, 3), "head": (16 * 16 * 16, 10)}
    tensors = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1] * 4),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "head"], ["logits"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "clock", [images], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
