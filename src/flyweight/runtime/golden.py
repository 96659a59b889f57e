"""Golden vectors: does this machine give the logits that were recorded when the bundle was made?

`python -m flyweight.runtime.golden < {"file", "backend", "threads", "images", "logits", "tolerance"}` prints one JSON
object, so that a file that ends its process ends nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.runtime.backends import load_backend
from flyweight.runtime.process import run_module

BATCH = 32


def compare(found: np.ndarray, expected: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Return whether logits (N, K) are the golden ones: `ok`, `n`, `max_error` (None: not finite) and `tolerance`."""
    finite = found.shape == expected.shape and bool(np.isfinite(found).all() and np.isfinite(expected).all())
    error = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) if finite else None
    ok = error is not None and error <= tolerance and len(expected) > 0
    return {"ok": ok, "n": len(expected), "max_error": error, "tolerance": tolerance}


def compare_in_fresh_process(
    file: Path, *, backend: str, threads: int, images: Path, logits: Path, tolerance: float
) -> dict[str, Any]:
    """Return the same for a model file and two `.npy` files.

    Raises:
        BundleError: The file cannot be loaded or run.
        MissingExtraError: The backend's package is not installed.
    """
    given = {"file": file, "backend": backend, "threads": threads, "images": images, "logits": logits}
    said = run_module("flyweight.runtime.golden", [], json.dumps({**given, "tolerance": tolerance}, default=str))
    found: dict[str, Any] = json.loads(said)
    return found


def main(arguments: list[str]) -> None:
    """Compare what standard input names and print the result."""
    given = json.load(sys.stdin)
    backend = load_backend(given["backend"], Path(given["file"]), given["threads"])
    images, logits = (np.load(given[name], allow_pickle=False) for name in ("images", "logits"))
    step = backend.only_batch or BATCH
    found = np.concatenate([backend.run(images[i : i + step]) for i in range(0, len(images), step)])
    print(json.dumps(compare(found, logits, given["tolerance"]), allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1:])
