from __future__ import annotations

import pytest

from flyweight.errors import BudgetError
from flyweight.measure.budget import LIMITS, MEASURED, NAMED, Budget


def limits(text: str) -> dict[str, float]:
    return {limit.metric: limit.value for limit in Budget.parse(text).limits}


def test_the_example_of_the_documentation_is_read_in_ms_bytes_and_counts() -> None:
    assert limits("latency_p90<2ms,size<500KB,memory<64MB,params<20k,macs<10M") == {
        "latency_p90": 2.0,
        "size": 500_000,
        "memory": 64_000_000,
        "params": 20_000,
        "macs": 10_000_000,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("size<1KiB", 1024),
        ("size<1kb", 1000),
        ("size<2MiB", 2 * 1024**2),
        ("size<.5MB", 500_000),
        ("size<1_000B", 1000),
        ("latency_p50<800us", 0.8),
        ("latency_p50<800µs", 0.8),
        ("latency_p99<0.01s", 10.0),
        (" params <= 5 k ", 5000),
        ("macs<1.5G", 1.5e9),
        ("params<1234", 1234),
        ("params<3K", 3000),
    ],
)
def test_units_and_spaces_are_read(text: str, value: float) -> None:
    assert list(limits(text).values()) == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("text", "what", "do"),
    [
        ("latency<5ms", "'latency'", "latency_p90<5ms"),
        ("flops<5M", "'flops'", "macs<5M (FLOPs = 2 × MACs)"),
        ("siez<5KB", "'siez'", "size<5KB"),
        ("size<5", "no unit in 'size<5'", "size<5KB"),
        ("size<5ms", "'ms'", "size<5KB"),
        ("params<5m", "'m'", "params<5k"),
        ("size<1KB,size<2KB", "'size' stands twice", "keep one size"),
        ("maximize=accuracy,maximize=macro_f1", "'maximize' stands twice", "keep one"),
        ("maximize=f1", "'f1'", "maximize=macro_f1"),
        ("accuracy>0.9", "'accuracy>0.9'", "maximize"),
        ("laptpo", "'laptpo'", "use laptop"),
        ("fast please", "'fast please'", "latency_p90<2ms"),
        ("size<0KB", "'size<0KB'", "above 0"),
        ("size<-3KB", "'size<-3KB'", "metric<number"),
        ("size<nanKB", "'size<nanKB'", "metric<number"),
        ("phone,laptop", "two named budgets", "name one"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_way_out(text: str, what: str, do: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget.parse(text)
    assert what in caught.value.what
    assert do in caught.value.do


def test_the_goal_is_accuracy_unless_one_is_named() -> None:
    assert Budget.parse("size<1MB").maximize == "accuracy"
    assert Budget.parse("size<1MB,maximize=macro_f1").maximize == "macro_f1"
    assert Budget.parse("size<1MB", maximize="min_recall").maximize == "min_recall"
    with pytest.raises(BudgetError, match="macro_f1"):
        Budget.parse("maximize=macro_f1", maximize="accuracy")


def test_a_limit_is_strict_unless_written_with_an_equals_sign() -> None:
    for text, status in (("params<100", "violated"), ("params<=100", "met")):
        assert [check.status for check in Budget.parse(text).check({"params": 100})] == [status]


def test_what_was_not_measured_is_unverified() -> None:
    checks = Budget.parse("latency_p90<2ms,size<1KB").check({"latency_p90": None})
    assert [check.status for check in checks] == ["unverified", "unverified"]
    assert [check.shown_value for check in checks] == ["not measured"] * 2


def test_the_hosts_clock_never_stands_in_for_another_device() -> None:
    budget = Budget.parse("latency_p90<2ms,memory<9MB,size<1KB", device="pi")
    values = {"latency_p90": 1.0, "memory": 1e6, "size": 10.0}
    assert [check.status for check in budget.check(values)] == ["unverified", "unverified", "met"]
    assert [check.status for check in budget.check(values, measured_on="pi")] == ["met"] * 3


@pytest.mark.parametrize("name", NAMED)
def test_a_named_budget_limits_only_what_is_true_on_any_device(name: str) -> None:
    budget = Budget.parse(name)
    assert budget.limits
    assert not {limit.metric for limit in budget.limits} & MEASURED


def test_a_limit_beside_a_named_budget_replaces_its_own() -> None:
    assert limits("microcontroller,size<100KB,params<9k") == {**limits("microcontroller"), "size": 1e5, "params": 9000}


@pytest.mark.parametrize("metric", LIMITS)
def test_a_value_is_shown_so_that_a_budget_can_read_it_again(metric: str) -> None:
    from flyweight.measure.budget import show

    for value in (1.0, 12.5, 999.0, 1234.0, 5.67e6, 2e9):
        read = Budget.parse(f"{metric}<{show(metric, value)}").limits[0].value
        assert read == pytest.approx(value, rel=0.01)


def test_a_limit_may_name_the_device_and_the_budget_is_then_for_it() -> None:
    budget = Budget.parse("latency_p90<5ms@pi4,size<1MB")
    assert (budget.device, budget.limits[0].value, budget.limits[0].text) == ("pi4", 5.0, "latency_p90<5ms@pi4")
    assert [check.status for check in budget.check({"latency_p90": 1.0, "size": 10.0})] == ["unverified", "met"]
    assert [check.status for check in budget.check({"latency_p90": 1.0}, measured_on="pi4")] == ["met", "unverified"]
    assert Budget.parse("latency_p90<5ms @ pi4", device="pi4").device == "pi4"
    assert Budget.parse("latency_p90<5ms").device == "host"


@pytest.mark.parametrize(
    ("text", "device"), [("latency_p90<5ms@pi4", "host"), ("latency_p90<5ms@a,memory<9MB@b", None)]
)
def test_a_budget_for_two_devices_is_refused(text: str, device: str | None) -> None:
    with pytest.raises(BudgetError, match="is for two devices"):
        Budget.parse(text, device=device)
