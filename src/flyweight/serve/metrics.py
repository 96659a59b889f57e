"""What the server counts, as Prometheus reads it; no label takes a value from a request."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, waiting: Callable[[], float], batches: Callable[[], dict[int, int]]) -> None:
        self._registry = CollectorRegistry()
        labels = ["status"]
        self.requests = Counter("flyweight_requests", "Answers to /predict.", labels, registry=self._registry)
        self.rejected = Counter("flyweight_rejected", "Images below the reject threshold.", registry=self._registry)
        self.seconds = Histogram(
            "flyweight_seconds", "Of /predict, from its head to its answer.", buckets=SECONDS, registry=self._registry
        )
        self.inside = Gauge("flyweight_inside", "Requests that are read, decoded or wait.", registry=self._registry)
        Gauge("flyweight_waiting", "Images that wait for the model.", registry=self._registry).set_function(waiting)
        runs = Gauge("flyweight_batches", "Runs of the model.", registry=self._registry)
        runs.set_function(lambda: sum(batches().values()))
        images = Gauge("flyweight_images", "Images classified.", registry=self._registry)
        images.set_function(lambda: sum(size * count for size, count in batches().items()))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
