"""Peak memory of a fresh process that runs a model, and how much of it the empty runner takes already.

`python -m flyweight.runtime.memory [FILE --backend NAME --threads N --batch N]` prints the peak of its own process, in
bytes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flyweight.errors import BundleError
from flyweight.runtime.backends import DEFAULT, import_backend
from flyweight.runtime.process import run_module

RUNS = 5  # batches classified before the peak is read: the arena is allocated in the first one
FEWER_RUNS = 2  # of larger batches, which take their time
REPEATS = 3  # fresh processes of each kind; their median counts


@dataclass(frozen=True)
class Memory:
    """Resident memory, in bytes.

    Attributes:
        peak_bytes: Most that a fresh process held while it loaded the model and classified images, batch by batch.
        empty_bytes: The same of a process that only imports the runtime.
        increment_bytes: The difference: what the model adds; at least 0.
        processes: How many fresh processes of each kind; the numbers are medians.
    """

    peak_bytes: int
    empty_bytes: int
    increment_bytes: int
    processes: int


def peak_memory(
    file: Path,
    *,
    threads: int = 1,
    backend: str = DEFAULT,
    batch: int = 1,
    repeats: int = REPEATS,
    empty_bytes: int | None = None,
) -> Memory:
    """Return the memory that a model file takes on this machine.

    Args:
        batch: Images of one run.
        empty_bytes: Of an earlier call with this backend; measured again without.

    Raises:
        BundleError: The file cannot be loaded, or cannot be run with this batch; or this system tells no memory.
    """
    arguments = [str(file), "--backend", backend, "--threads", str(threads), "--batch", str(batch)]
    peak = _median_peak(arguments, repeats)
    base = _median_peak(["--backend", backend], repeats) if empty_bytes is None else empty_bytes
    return Memory(peak, base, max(0, peak - base), repeats)


def _median_peak(arguments: list[str], repeats: int) -> int:
    return int(statistics.median(int(run_module(__name__, arguments)) for _ in range(repeats)))


def own_peak() -> int:
    """Return the most resident memory this process has held, in bytes.

    Linux: VmHWM, not `ru_maxrss`, which a process inherits from the one that started it, however large that was.

    Raises:
        BundleError: The system does not say (Windows).
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:  # not Linux
        try:
            import resource
        except ImportError:
            raise BundleError(
                "this system does not say how much memory a process held", do="measure memory on Linux or macOS"
            ) from error
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main(arguments: list[str]) -> None:
    """Print this process's peak after loading and running a model, or after the imports only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--backend", default=DEFAULT)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args(arguments)
    load = import_backend(given.backend)  # its package is part of the empty runner
    if given.file is not None:
        backend = load(given.file, given.threads)
        images = np.zeros((given.batch, *backend.shape), np.uint8)
        for _ in range(RUNS if given.batch == 1 else FEWER_RUNS):
            np.asarray(backend.run(images))
    print(own_peak())


if __name__ == "__main__":
    main(sys.argv[1:])
