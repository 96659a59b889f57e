"""A backend that does nothing for a stated time: the clock is checked against it.

Its file is JSON, `{"milliseconds": 5.0, "classes": 2, "shape": [1, 8, 8]}`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from flyweight.errors import BundleError


class BusyWait:
    """Spins for a fixed time, then returns zeros."""

    name = "busy-wait"
    only_batch: int | None = None

    def __init__(self, file: Path, threads: int) -> None:
        try:
            content = json.loads(Path(file).read_text("utf-8"))
            self._nanoseconds = int(float(content["milliseconds"]) * 1e6)
            self._classes = int(content.get("classes", 2))
            channels, height, width = content.get("shape", [1, 8, 8])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"busy-wait cannot load {str(file)!r}: {error}", do='write {"milliseconds": 5} into it'
            ) from error
        self.shape = (int(channels), int(height), int(width))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) of zeros, after the stated time for the whole batch."""
        end = time.perf_counter_ns() + self._nanoseconds
        while time.perf_counter_ns() < end:
            pass
        return np.zeros((len(images), self._classes), np.float32)


def load(file: Path, threads: int) -> BusyWait:
    """Return the loaded file. Raises BundleError."""
    return BusyWait(file, threads)
