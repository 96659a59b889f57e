"""Every check by name. A new one is one small function and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from flyweight.published.checks import accuracy, consistency, counts, size, speed
from flyweight.published.finding import Finding
from flyweight.published.table import Row

Check = Callable[[Sequence[Row]], Iterator[Finding]]


def _each(check: Callable[[Row], Iterator[Finding]]) -> Check:
    """Return the check of one row as a check of many."""

    def all_rows(rows: Sequence[Row]) -> Iterator[Finding]:
        for row in rows:
            yield from check(row)

    return all_rows


CHECKS: dict[str, Check] = {
    "params_match": _each(counts.params_match),
    "macs_match": _each(counts.macs_match),
    "flops_match": _each(counts.flops_match),
    "macs_called_flops": _each(counts.macs_called_flops),
    "built_is_claimed": counts.built_is_claimed,
    "size_matches_params": _each(size.size_matches_params),
    "latency_is_inverse_throughput": _each(speed.latency_is_inverse_throughput),
    "latency_is_overhead": _each(speed.latency_is_overhead),
    "gain_arithmetic": _each(consistency.gain_arithmetic),
    "gain_repeated": consistency.gain_repeated,
    "same_accuracy_everywhere": consistency.same_accuracy_everywhere,
    "same_params_everywhere": consistency.same_params_everywhere,
    "accuracy_above_best_listed": accuracy.accuracy_above_best_listed,
    "accuracy_above_same_net": accuracy.accuracy_above_same_net,
    "best_is_beaten": _each(accuracy.best_is_beaten),
    "pretraining_saw_test": _each(accuracy.pretraining_saw_test),
    "accuracy_without_interval_or_seeds": accuracy.accuracy_without_interval_or_seeds,
    "differences_inside_noise": accuracy.differences_inside_noise,
}
