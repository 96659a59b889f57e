"""Several processes that open one study at the same moment."""

import subprocess
import sys
import time

OPEN = """
import sys, time
from flyweight.tune.store import open_store
while time.time() < float(sys.argv[2]):
    pass
open_store(sys.argv[1], "one", facts={"data": 1}, directions=["maximize"])
"""


def open_at_once(url: str, processes: int = 4, seconds: float = 4.0) -> list[str]:
    """Return what each process said on its standard error; the study is new to all of them."""
    begin = str(time.time() + seconds)
    command = [sys.executable, "-c", OPEN, url, begin]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(processes)]
    return [process.communicate(timeout=120)[1] for process in running]
