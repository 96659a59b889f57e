from __future__ import annotations

import json
import resource
import statistics
from pathlib import Path

import jsonschema
import pytest
from tests.runtime.tiny_bundle import write_bundle

from flyweight.cli import run
from flyweight.errors import BundleError
from flyweight.measure.budget import LIMITS, Budget
from flyweight.measure.latency import FULL, LatencyResult, Plan, compare, noise_floor, random_order, time_specs
from flyweight.measure.speed import Measurement, measure, time_models
from flyweight.runtime.timing import MODEL, Effort, Spec

BRIEF = Effort(samples=30, enough=10, soft_seconds=0.1, hard_seconds=1.0, warmup_seconds=0.05)


def cpu_seconds() -> float:
    """Processor time of the processes that ended: one thread each, so about the time on an idle machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def waiting(folder: Path, milliseconds: float) -> Spec:
    file = folder / f"{milliseconds}.json"
    file.write_text(json.dumps({"milliseconds": milliseconds}))
    return Spec(str(file), backend="busy-wait")


def result(*medians: float, floor: float | None = None, n: int = 100, slow: bool = False) -> LatencyResult:
    samples = tuple((median,) * n for median in medians)
    return LatencyResult("x", MODEL, "busy-wait", 1, samples, True, 10, floor, slow)


def test_every_candidate_is_timed_in_its_own_processes(tmp_path: Path) -> None:
    specs = {"two": waiting(tmp_path, 2.0), "three": waiting(tmp_path, 3.0)}
    found = {name: clocks[MODEL] for name, clocks in time_specs(specs, Plan(2, BRIEF, False)).items()}
    for name, expected in (("two", 2.0), ("three", 3.0)):
        assert len(found[name].samples_ms) == 2
        # The shortest: on a loaded machine the median tells of the neighbours.
        assert min(min(samples) for samples in found[name].samples_ms) == pytest.approx(expected, rel=0.02)


def test_a_clear_difference_is_found_though_a_neighbour_held_one_process_up() -> None:
    fast, slow = result(1.0, 1.01, 0.99, 1.02, 9.0, floor=0.03), result(1.5, 1.51, 1.52, 1.53, 8.0)
    assert compare(result(1.0, 1.01, 0.99, 1.02, 1.03), slow).verdict == "faster"
    assert compare(slow, result(1.0, 1.01, 0.99, 1.02, 1.03)).verdict == "slower"
    assert compare(fast, result(1.5, 1.51, 1.52, 1.53, 1.54)).verdict == "no difference"


def test_a_difference_within_the_noise_floor_is_no_difference() -> None:
    fast, slow = result(1.0, 1.001, 1.002, 1.003, 1.004, floor=0.03), result(1.02, 1.021, 1.022, 1.023, 1.024)
    assert compare(fast, slow).p < 0.05
    assert compare(fast, slow).verdict == "no difference"


def test_three_processes_are_too_few_to_rank() -> None:
    assert compare(result(1.0, 1.1, 1.2), result(2.0, 2.1, 2.2)).verdict == "no difference"


def test_the_noise_floor_is_the_spread_between_processes() -> None:
    assert noise_floor([1.0] * 10) == 0.0
    assert 0.05 < noise_floor([1.0, 1.1] * 5) <= 0.1


def test_every_round_takes_every_candidate_once_in_its_own_order() -> None:
    order = random_order(["a", "b", "c"], 20, seed=0)
    rounds = [tuple(order[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 3


def test_too_few_samples_give_null_and_the_reason() -> None:
    few = result(1.0, n=50)
    assert (few.p50_ms, few.p90_ms, few.p99_ms) == (1.0, 1.0, None)
    assert few.quantile(0.99).reason == "n too small: 50 samples, p99 needs 299"


def test_a_slow_net_gives_p50_only_and_says_so() -> None:
    slow = result(1.0, n=100, slow=True)
    assert slow.p50_ms == 1.0
    assert slow.p90_ms is None
    assert "p50 only" in str(slow.quantile(0.9).reason)


def test_a_slow_net_is_recognised_by_its_number_of_samples(tmp_path: Path) -> None:
    plan = Plan(2, Effort(samples=200, enough=60, soft_seconds=0.2, hard_seconds=1.0, warmup_seconds=0.1), False)
    found = time_specs({"slow": waiting(tmp_path, 40.0)}, plan)["slow"][MODEL]
    assert found.slow
    assert found.p50_ms >= 40  # type: ignore[operator]
    assert found.p90_ms is None


def test_the_full_plan_can_give_p99() -> None:
    assert FULL.processes * FULL.effort.enough >= 299


def test_models_are_timed_in_the_order_given_in_under_two_seconds_each(bundle_path: Path) -> None:
    paths = [bundle_path, bundle_path / "model.onnx"]
    before = cpu_seconds()
    found = time_models(paths, quick=True)
    assert cpu_seconds() - before < 2 * len(paths)
    assert [Path(one.name) for one in found] == paths
    assert all(one.p90_ms is not None for one in found)
    json.dumps([one.as_dict() for one in found], allow_nan=False)


def test_no_models_take_no_time() -> None:
    assert time_models([]) == []


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"bad\.onnx"):
        time_models([tmp_path / "bad.onnx"], quick=True)


def test_the_command_prints_the_contract_within_its_published_schema(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cpu_seconds()
    assert run(["measure", str(bundle_path), "--threads", "1", "--json"]) == 0
    assert cpu_seconds() - before < 20
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, Measurement.model_json_schema(mode="serialization"))
    assert found["latency_p50_ms"] <= found["latency_p90_ms"] <= found["latency_p99_ms"]
    assert (found["backend"], found["precision"], found["threads"]) == ("onnxruntime", "fp32", 1)
    assert 0 < found["memory_increment_bytes"] < found["memory_peak_bytes"]
    assert found["noise_floor"] > 0
    assert found["latency_n"] >= 299


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return measure(write_bundle(tmp_path_factory.mktemp("measured") / "bundle"), quick=True)


def test_the_three_clocks_grow_with_the_work_in_them(measured: Measurement) -> None:
    found = measured
    medians = [found.latency[clock]["p50"]["ms"] for clock in ("model", "preprocess_model", "encoded")]
    assert medians == sorted(medians)
    assert found.latency_p50_ms == medians[0]
    assert found.noise_floor is None


def test_throughput_is_taken_at_each_batch_size_and_not_from_the_latency(measured: Measurement) -> None:
    found = measured
    assert [row.batch for row in found.throughput] == [1, 8, 32, 128]
    rates = [row.images_per_second for row in found.throughput]
    assert rates[-1] > 1.5 * rates[0]
    assert statistics.median(rates) != pytest.approx(1000 / found.latency_p50_ms)  # type: ignore[operator]


def test_a_measurement_gives_a_budget_its_values(measured: Measurement) -> None:
    found = measured
    assert set(found.budget_values()) == set(LIMITS)
    checks = Budget.parse("latency_p50<1s,size<1MB,memory<1GB,params<10").check(found.budget_values())
    assert [check.status for check in checks] == ["met", "met", "met", "violated"]


def test_fewer_than_one_thread_is_refused(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="threads is 0"):
        measure(bundle_path, threads=0)
