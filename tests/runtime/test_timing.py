from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flyweight.errors import BundleError
from flyweight.runtime import timing
from flyweight.runtime.memory import peak_memory
from flyweight.runtime.timing import Effort, Spec, sample, time_in_fresh_process, warm_up

BRIEF = Effort(samples=20, enough=5, soft_seconds=0.2, hard_seconds=1.0, warmup_seconds=0.1)


def spin(milliseconds: float) -> None:
    end = time.perf_counter_ns() + int(milliseconds * 1e6)
    while time.perf_counter_ns() < end:
        pass


class Clock:
    """Time that passes only when something waits, so that a loaded machine changes nothing."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def process_time_ns(self) -> int:
        return self.now_ns

    def perf_counter(self) -> float:
        return self.now_ns / 1e9

    def wait(self, milliseconds: float) -> None:
        self.now_ns += int(milliseconds * 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def test_a_known_duration_is_measured_as_that_long() -> None:
    durations = sample(lambda: spin(2.0), BRIEF)
    assert len(durations) >= 5
    assert min(durations) / 1e6 == pytest.approx(2.0, rel=0.02)


def test_a_known_duration_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    file = tmp_path / "wait.json"
    file.write_text(json.dumps({"milliseconds": 2.0}))
    found = time_in_fresh_process(Spec(str(file), backend="busy-wait", effort=BRIEF))["clocks"]["model"]
    assert min(found["samples_ns"]) / 1e6 == pytest.approx(2.0, rel=0.02)


def test_no_sample_is_left_out_and_the_collector_is_off_meanwhile(clock: Clock) -> None:
    seen: list[bool] = []
    waits = iter([1.0] * 19 + [10.0])
    durations = sample(lambda: (seen.append(gc.isenabled()), clock.wait(next(waits))), BRIEF)
    assert durations == [1_000_000] * 19 + [10_000_000]
    assert not any(seen)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("effort", "n"),
    [
        (Effort(samples=10, enough=2, soft_seconds=5, hard_seconds=9), 10),
        (Effort(samples=1000, enough=2, soft_seconds=0.1, hard_seconds=9), 2),
        (Effort(samples=1000, enough=7, soft_seconds=0.1, hard_seconds=9), 7),
        (Effort(samples=1000, enough=900, soft_seconds=0.1, hard_seconds=0.24), 4),
        (Effort(samples=1000, enough=900, soft_seconds=0.0, hard_seconds=0.0), 1),
    ],
)
def test_sampling_of_60_ms_runs_ends_where_the_effort_says(clock: Clock, effort: Effort, n: int) -> None:
    assert len(sample(lambda: clock.wait(60), effort)) == n


def test_warming_up_waits_until_the_runs_are_steady(clock: Clock) -> None:
    durations = [0.1 + 2 * 0.97**i for i in range(10_000)]
    waits = iter(durations)
    runs, steady = warm_up(lambda: clock.wait(next(waits)), 5.0)
    assert steady
    assert durations[runs] < 0.11


def test_warming_up_gives_up_and_says_so(clock: Clock) -> None:
    count = iter(range(10**9))
    assert warm_up(lambda: clock.wait(0.05 * 1.03 ** next(count)), 0.5)[1] is False


def test_throughput_is_all_images_over_all_the_time_slow_runs_included(clock: Clock) -> None:
    waits = itertools.chain(
        [1.0] * 10 * timing.WINDOWS, itertools.cycle([1.0, 1.0, 7.0])
    )  # steady while it warms up, then it is not

    def run(images: np.ndarray) -> np.ndarray:
        clock.wait(next(waits))
        return images

    effort = Effort(samples=30, enough=30, soft_seconds=9.0, hard_seconds=9.0, warmup_seconds=1.0)
    (row,) = timing._throughputs(run, np.zeros((4, 1), np.uint8), Spec("x", batches=(8,), effort=effort))
    assert row == {"batch": 8, "images_per_second": pytest.approx(8 / 0.003), "n": 30}  # the median run: 8 / 0.001


def test_a_file_that_is_no_model_is_an_error_from_the_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"bad\.onnx"):
        time_in_fresh_process(Spec(str(tmp_path / "bad.onnx")))


def test_the_runner_needs_nothing_from_the_folder_it_is_started_in(bundle_path: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    code = (
        "from flyweight.runtime.timing import *\n"
        f"print(len(time_in_fresh_process(Spec({str(bundle_path / 'model.onnx')!r}))['clocks']['model']['samples_ns']))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=trap, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 60


def test_memory_is_that_of_the_fresh_process_not_of_a_large_parent(bundle_path: Path) -> None:
    ballast = np.ones(400_000_000, np.uint8)
    found = peak_memory(bundle_path / "model.onnx", repeats=1)
    assert ballast[-1] == 1
    assert 10e6 < found.empty_bytes < 250e6
    assert 0 <= found.increment_bytes == max(0, found.peak_bytes - found.empty_bytes)


def test_a_model_with_large_weights_takes_that_much_more_memory(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).random((3 * 32 * 32, 8000), np.float32)  # 98 MB
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 8000])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert peak_memory(path, repeats=1).increment_bytes > weight.nbytes
