"""Is the clock right? A known 5 ms must be measured as 5 ms, and a file must not be faster than itself.

    python benchmarks/clock.py [--repetitions 100]

Both go through the protocol that `flyweight measure` uses: fresh processes, random order, warm-up, no trimming.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from results_file import Claim, write_results

from flyweight.measure.latency import FULL, LatencyResult, Plan, compare, time_specs
from flyweight.measure.statistics import wilson
from flyweight.runtime.timing import MODEL, Effort, Spec

SHORT = Plan(
    FULL.processes, Effort(samples=60, enough=20, soft_seconds=0.15, hard_seconds=2, warmup_seconds=0.15), False
)
SLOWER_REPETITIONS = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=100, help="of the A/A comparison")
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as folder:
        waiting = busy_wait_error(Path(folder))
        print(f"busy wait of 5 ms: error {waiting.value:.4f} [{waiting.low:.4f}, {waiting.high:.4f}]", flush=True)
        slower = slower_found(Path(folder))
        print(f"5 % slower: found {slower.value:g} of {slower.n}", flush=True)
        same = no_difference(Path(folder), repetitions)
        print(f"A/A: no difference in {same.value:g} of {same.n}")
    print(write_results("clock", [waiting, same, slower], seeds=range(repetitions)))


def busy_wait_error(folder: Path) -> Claim:
    """Measure a backend that spins for 5 ms; the error is that of the median, relative."""
    result = time_specs({"wait": waiting(folder, 5.0)}, Plan(FULL.processes, FULL.effort, False))["wait"][MODEL]
    median = result.quantile(0.5)
    assert median.ms is not None
    assert median.low_ms is not None
    assert median.high_ms is not None
    errors = [abs(ms - 5.0) / 5.0 for ms in (median.ms, median.low_ms, median.high_ms)]
    note = "|p50 - 5 ms| / 5 ms; low and high from the order-statistic 95 % interval of p50"
    return Claim("busy_wait_5ms_error", errors[0], 0.02, "lower", "fraction", min(errors), max(errors), result.n, note)


def slower_found(folder: Path) -> Claim:
    """Compare 5.25 ms with 5 ms, over and over: a test that never finds anything would pass the A/A one."""
    specs = {"5.25": waiting(folder, 5.25), "5": waiting(folder, 5.0)}
    found = [compare(*pair(specs, seed)).verdict == "slower" for seed in range(SLOWER_REPETITIONS)]
    return _count("five_percent_slower_found_of_10", sum(found), len(found), 9)


def no_difference(folder: Path, repetitions: int) -> Claim:
    """Compare a small network with itself, over and over."""
    path = folder / "model.onnx"
    onnx.save(network(), path)
    spec = Spec(str(path))
    verdicts = [compare(*pair({"a": spec, "b": spec}, seed)).verdict for seed in range(repetitions)]
    return _count("aa_no_difference_of_100", verdicts.count("no difference"), repetitions, 90)


def pair(specs: dict[str, Spec], seed: int) -> tuple[LatencyResult, LatencyResult]:
    """Time two candidates interleaved and return their results in order."""
    first, second = (clocks[MODEL] for clocks in time_specs(specs, SHORT, seed=seed).values())
    return first, second


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


def _count(name: str, hits: int, n: int, target: float) -> Claim:
    low, high = wilson(hits, n)
    note = "low and high: Wilson 95 % interval of the share, as repetitions"
    return Claim(name, hits, target, "higher", "repetitions", low * n, high * n, n, note)


if __name__ == "__main__":
    main()
