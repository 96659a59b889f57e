"""Latency and throughput against each other and against the work that is done."""

from __future__ import annotations

from collections.abc import Iterator

from flyweight.published.count import count
from flyweight.published.finding import Finding, finding
from flyweight.published.numbers import SLACK
from flyweight.published.table import Row

SLOWEST = 0.5e9  # MACs per second: far below what networks of this kind reach on a CPU


def latency_is_inverse_throughput(row: Row) -> Iterator[Finding]:
    """A latency at a batch above 1 was measured, not computed as 1000 / throughput."""
    latency, fps, batch = row.number("latency_ms"), row.number("fps"), row.number("latency_batch")
    if not _inverse(row) or latency is None or fps is None or (batch and batch.value == 1):
        return
    if batch is None:
        yield finding(
            "unsupported", "latency_is_inverse_throughput", row, "latency_ms", "",
            f"this is 1000 / {fps.text} images per second, which is a latency at batch 1 only; the batch is not given",
            "state the batch, and the time from the arrival of a batch to its answer",
        )  # fmt: skip
        return
    true = batch.value * 1000 / fps.value
    yield finding(
        "wrong", "latency_is_inverse_throughput", row, "latency_ms", f"{true:.3g}",
        f"this is 1000 / {fps.text} images per second, an image's share of a batch; nobody gets an answer in less than "
        f"the batch of {batch.text} takes, {true:.3g} ms",
        f"write {true:.3g} ms at batch {batch.text}, and measure batch 1 for requests",
    )  # fmt: skip


def latency_is_overhead(row: Row) -> Iterator[Finding]:
    """A latency at batch 1 is the network's work, not the overhead around it."""
    latency, batch = row.number("latency_ms"), row.number("latency_batch")
    if latency is None or (batch and batch.value > 1):
        return
    net = count(row)
    rate = net.merged_macs / (latency.value / 1000)
    if rate >= SLOWEST:
        return
    yield finding(
        "unsupported", "latency_is_overhead", row, "latency_ms", f"{rate / 1e9:.3g} GMAC/s",
        f"{net.merged_macs / 1e6:.3g} MMACs in {latency.text} ms are {rate / 1e9:.3g} GMAC/s, so nearly all of the "
        "time is the framework around the network, unless the device is a microcontroller",
        "time the network alone, warm, in a runtime for inference; give percentiles and what was timed",
    )  # fmt: skip


def _inverse(row: Row) -> bool:
    latency, fps = row.number("latency_ms"), row.number("fps")
    if latency is None or fps is None:
        return False
    slack = latency.half / latency.value + fps.half / fps.value + SLACK
    return abs(latency.value * fps.value / 1000 - 1) <= slack
