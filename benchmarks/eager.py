"""PyTorch eager as it is: the trained network, nothing folded, channels last, one thread, timed by the same clock.

`python benchmarks/eager.py < spec.json` prints what `flyweight.runtime.timing` prints of a file; `file` of the spec is
the folder of a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import FlyweightBug
from flyweight.runtime.timing import Spec, read_spec, time_backend, time_in_fresh_process

NAME = "torch-eager"


class Eager:
    """The network of a run in eval mode."""

    name = NAME
    only_batch: int | None = None

    def __init__(self, run: Path, threads: int) -> None:
        import torch

        from flyweight.train.trained import Trained

        self._torch = torch
        torch.set_num_threads(threads)
        trained = Trained.load(run)
        self._network = trained.network().to(memory_format=torch.channels_last)
        side = trained.preprocess.image_size
        self.shape = (trained.preprocess.channels, side, side)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images (N, C, S, S) uint8."""
        with self._torch.inference_mode():
            given = self._torch.from_numpy(images).contiguous(memory_format=self._torch.channels_last)
            logits: np.ndarray = self._network(given).numpy()
        return logits


def clock(spec: Spec) -> dict[str, Any]:
    """Return what a fresh process measured, of a file or of eager."""
    if spec.backend != NAME:
        return time_in_fresh_process(spec)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asdict(spec)),
        capture_output=True,
        text=True,
        env=own,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise FlyweightBug(f"eager ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    given = read_spec(sys.stdin.read())
    print(json.dumps(time_backend(Eager(Path(given.file), given.threads), given), allow_nan=False))
