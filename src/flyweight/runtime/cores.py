"""The cores that a process may use: a worker keeps to one, and lends more to what it times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from flyweight.errors import BudgetError
from flyweight.runtime.environment import usable_cores

_found: frozenset[int] = frozenset()  # the cores that this process had before `pin`


def pin(number: int) -> None:
    """Keep this process to one core, so that two workers never share one while another is free; where the system can.

    Args:
        number: Of the worker: the first gets the first core.
    """
    global _found
    if hasattr(os, "sched_setaffinity"):
        _found = frozenset(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {sorted(_found)[number % len(_found)]})


@contextmanager
def room_for(threads: int) -> Iterator[None]:
    """Let processes that are started within the block have a core for each of their threads.

    What is started inherits the cores of the thread that starts it: with fewer of them than threads it would be timed
    while its threads wait for each other.

    Raises:
        BudgetError: There are fewer cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        refuse_too_many(threads, usable_cores())
        yield
        return
    mine = os.sched_getaffinity(0)
    others = sorted(_found - mine)
    refuse_too_many(threads, len(mine) + len(others))
    os.sched_setaffinity(0, mine | set(others[: max(0, threads - len(mine))]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def refuse_too_many(threads: int, cores: int) -> None:
    """Raise BudgetError where there are more threads than cores: their latency is not the network's."""
    if threads > cores:
        raise BudgetError(
            f"--threads {threads} on {cores} core{'s' * (cores != 1)}: the latency would be that of threads that wait",
            do=f"give --threads {cores} or fewer, or search on a machine with more cores",
            more="docs/tuning.md#objectives",
        )
