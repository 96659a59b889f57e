"""Run a module of the runtime in a fresh process, so that nothing the caller holds or did is in the number; and end a
worker with the process that began it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from flyweight.errors import BundleError, FlyweightBug

TIMEOUT_SECONDS = 600


def run_module(module: str, arguments: list[str], stdin: str = "") -> str:
    """Return what `python -m module` printed.

    Raises:
        BundleError: It could not load or run the model, with its own words; or it took too long or too much memory.
        FlyweightBug: It died.
    """
    # One source of threads: the runner's own --threads, not what the shell set for BLAS or OpenMP.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}
    # With -P the folder the user stands in cannot shadow a module.
    line = [sys.executable, "-P", "-m", "flyweight.runtime.process", module, *arguments]
    try:
        done = subprocess.run(
            line, input=stdin, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"the model did not finish within {TIMEOUT_SECONDS} s on this machine",
            do="measure a smaller network, or on a faster machine",
        ) from error
    if done.returncode == BundleError.exit_code and done.stdout.startswith("{"):
        problem = json.loads(done.stdout.splitlines()[0])
        raise BundleError(problem["what"], do=problem["do"])
    if os.name == "posix" and done.returncode == -signal.SIGKILL:
        raise BundleError(
            "the system ended the process that ran the model, most likely for want of memory",
            do="free some memory, or measure a smaller network",
        )
    if done.returncode != 0:
        raise FlyweightBug(f"{module} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def exit_in_words(code: int) -> str:
    """Return what an exit code says, as `subprocess` and `multiprocessing` give it: below 0 it is a signal."""
    if os.name == "posix" and code == -signal.SIGKILL:
        return f"killed by signal {-code}, most likely for want of memory"
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def end_in_words(pid: int) -> str:
    """Return how a process of this machine ended, while its parent has not asked yet; "" where nobody can say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""  # no Linux, or it is gone
    if fields[0] != "Z":
        return ""
    return exit_in_words(os.waitstatus_to_exitcode(int(fields[49])))  # exit_code, see proc(5)


def end_with_parent() -> None:
    """End this worker as soon as the process that spawned it is gone, however it went; even if that was before now.

    A worker that outlives a killed command would write beside the one that continues it.
    """
    import multiprocessing
    import threading

    parent = multiprocessing.parent_process()
    assert parent is not None, "a process that multiprocessing began"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _main() -> None:
    """Run the module named first and hand a FlyweightError to the parent as JSON."""
    from importlib import import_module

    from flyweight.errors import FlyweightError

    try:
        import_module(sys.argv[1]).main(sys.argv[2:])
    except FlyweightError as error:
        print(json.dumps(error.as_dict()))
        sys.exit(BundleError.exit_code)


if __name__ == "__main__":
    _main()
