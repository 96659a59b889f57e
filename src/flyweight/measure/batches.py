"""The table of a model over batch sizes, backends and threads: latency of a whole batch, throughput, memory.

Every cell runs in fresh processes, all cells interleaved in random order. How long each is sampled follows from its
batch and from a first look at its pace; with a limit on the whole, the cells that would take longest are left out and
named.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from flyweight.errors import FlyweightBug, FlyweightError
from flyweight.measure.latency import FULL_N, LatencyResult, latency_of, random_order
from flyweight.runtime.backends import CUDA
from flyweight.runtime.memory import Memory, peak_memory
from flyweight.runtime.timing import DEVICE, MODEL, WINDOW, Effort, Spec, time_in_fresh_process

SMALL_BATCH = 8  # up to here 299 samples are worth a minute
SECONDS = 60.0  # for the samples of a cell, in all its processes
FEW = 30  # samples where 299 would take too long
CHEAP_SECONDS = 2.0  # 299 samples of a larger batch are taken where they need no more
PROCESSES, QUICK_PROCESSES = 3, 1
FIRST_LOOK = Effort(samples=3, enough=1, soft_seconds=0.02, hard_seconds=1.0, warmup_seconds=0.02)
OWN_RUNS = Effort(samples=200, enough=3, soft_seconds=0.3, hard_seconds=4.0, warmup_seconds=0.0)

Progress = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True)
class Cell:
    """One model file on one backend with so many threads and images at a time.

    Attributes:
        model: Its name in the table.
        images: `.npy` of images to run; seeded noise without.
    """

    model: str
    file: Path
    backend: str
    threads: int
    batch: int = 1
    images: str | None = None

    def __str__(self) -> str:
        return f"{self.model}, {self.backend}, {self.threads} thread(s), batch {self.batch}"

    @property
    def curve(self) -> Cell:
        """The same at batch 1: equal for all cells of one curve over batches."""
        return replace(self, batch=1)

    def spec(self, effort: Effort) -> Spec:
        """Return what a process times for it."""
        clocks = (MODEL, DEVICE) if self.backend == CUDA else (MODEL,)
        return Spec(
            str(self.file), self.backend, self.threads, clocks, self.images, batch=self.batch, batches=(self.batch,),
            effort=effort, throughput_effort=OWN_RUNS,
        )  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """What was measured of a cell.

    Attributes:
        latency: Of whole batches, from handing the images over to holding the logits.
        device: The same work by the device's own clock, where it has one.
        images_per_second: Of each process, from runs of its own.
    """

    cell: Cell
    latency: LatencyResult
    device: LatencyResult | None
    images_per_second: tuple[float, ...]
    memory: Memory | None

    @property
    def rate(self) -> float:
        """Images per second: the median of the processes."""
        return median(self.images_per_second)


@dataclass(frozen=True)
class LeftOut:
    """A cell, or a load, that was not measured, and why."""

    what: str
    why: str


@dataclass
class Deadline:
    """The time that is left; endless without minutes."""

    minutes: float | None = None
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float:
        """Seconds left, below 0 when it is over."""
        return math.inf if self.minutes is None else self.start + 60 * self.minutes - time.monotonic()

    @property
    def why(self) -> str:
        """Say it as a reason."""
        return f"the {self.minutes:g} minutes were over"


@dataclass(frozen=True)
class Planned:
    """A cell, how its processes sample, and what all of them are expected to take."""

    cell: Cell
    effort: Effort
    seconds: float
    processes: int


def time_cells(
    cells: Sequence[Cell],
    *,
    deadline: Deadline | None = None,
    quick: bool = False,
    processes: int | Mapping[Cell, int] | None = None,
    paces: Mapping[Cell, tuple[float, float]] | None = None,
    slow_seconds: float = SECONDS,
    memory: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[Timed], list[LeftOut]]:
    """Return the cells that were measured, in the order given, and those that were not.

    At least 299 samples a cell for batches up to 8 where that takes under a minute (of larger ones where it takes two
    seconds); otherwise at least 30 or as many as a minute gives, and p50 only.

    Args:
        deadline: For the whole.
        quick: One process a cell, and 30 samples or as many as a tenth of a second gives.
        processes: Fresh ones a cell, or of each cell; None: 3, or 1 with quick.
        paces: Seconds of a run, and of starting a process, of cells that need no first look.
        slow_seconds: For the samples of a cell for which 299 would take too long, in place of a minute.
        memory: Measure that too, in a process more a cell.
    """
    until, known = deadline or Deadline(), dict(paces or {})
    if not isinstance(processes, Mapping):
        processes = dict.fromkeys(cells, processes or (QUICK_PROCESSES if quick else PROCESSES))
    say = progress or (lambda what, done, total: None)
    looked, left_out = first_look([cell for cell in cells if cell not in known], until, say)
    known |= looked
    planned = [
        plan_cell(cell, *known[cell], processes[cell], quick=quick, slow_seconds=slow_seconds, memory=memory)
        for cell in cells
        if cell in known
    ]
    chosen, too_long = within(planned, until)
    found, failed = _run(chosen, until, seed, say)
    memories, unknown = _memories([plan.cell for plan in chosen if found[plan.cell] and memory], until, say)
    wanted = FEW if quick else FULL_N
    timed = [_timed(plan, found[plan.cell], memories.get(plan.cell), wanted) for plan in chosen if found[plan.cell]]
    return timed, [*left_out, *too_long, *failed, *unknown]


def effort_for(
    batch: int, run_seconds: float, processes: int, *, quick: bool = False, slow_seconds: float = SECONDS
) -> Effort:
    """Return how each of the processes samples a batch that takes `run_seconds`."""
    full = not quick and FULL_N * run_seconds < (SECONDS if batch <= SMALL_BATCH else CHEAP_SECONDS)
    each = math.ceil((FULL_N if full else FEW) / processes)
    soft, warmup = (0.1, 0.2) if quick else (0.25, 1.0)
    return Effort(max(each, 1000), each, soft, (SECONDS if full else slow_seconds) / processes, warmup)


def within(planned: Sequence[Planned], deadline: Deadline) -> tuple[list[Planned], list[LeftOut]]:
    """Return the cells that fit into the time, and the others: those that would take longest are left out first."""
    chosen, left_out = list(planned), []
    for plan in sorted(planned, key=lambda plan: -plan.seconds):
        if sum(one.seconds for one in chosen) <= deadline.seconds_left:
            break
        chosen.remove(plan)
        why = f"it needs about {plan.seconds:.0f} s, and {deadline.minutes:g} minutes are not enough for all"
        left_out.append(LeftOut(str(plan.cell), why))
    return chosen, left_out


def first_look(
    cells: Sequence[Cell], deadline: Deadline, say: Progress | None = None
) -> tuple[dict[Cell, tuple[float, float]], list[LeftOut]]:
    """Return the seconds of one run, and of starting a process, of each cell; one process a curve."""
    curves: dict[Cell, list[Cell]] = {}
    for cell in cells:
        curves.setdefault(cell.curve, []).append(cell)
    paces: dict[Cell, tuple[float, float]] = {}
    left_out: list[LeftOut] = []
    for done, (curve, members) in enumerate(curves.items()):
        if deadline.seconds_left <= 0:
            left_out += [LeftOut(str(cell), deadline.why) for cell in members]
            continue
        while members:  # one that is too large for the memory must not take the smaller ones with it
            try:
                paces |= _paces(curve, members)
                break
            except (FlyweightError, FlyweightBug) as error:
                largest = max(members, key=lambda cell: cell.batch)
                members.remove(largest)
                left_out.append(LeftOut(str(largest), _why(error)))
        if say:
            say("first look", done + 1, len(curves))
    return paces, left_out


def _why(error: FlyweightError | FlyweightBug) -> str:
    """Return in one line why a cell was not timed; a process that died says so in the first of its lines."""
    return error.what if isinstance(error, FlyweightError) else str(error).splitlines()[0]


def _paces(curve: Cell, members: Sequence[Cell]) -> dict[Cell, tuple[float, float]]:
    sizes = tuple(sorted({cell.batch for cell in members}))
    spec = replace(curve.spec(FIRST_LOOK), clocks=(), batches=sizes, throughput_effort=None)
    start = time.monotonic()
    rows = {row["batch"]: row["images_per_second"] for row in time_in_fresh_process(spec)["throughput"]}
    wall = time.monotonic() - start
    startup = max(0.2, wall - sum(4 * batch / rate for batch, rate in rows.items()))
    last = rows[max(rows)]  # of a batch too long for a first look, the pace of the one before
    return {cell: (cell.batch / rows.get(cell.batch, last), startup) for cell in members}


def plan_cell(
    cell: Cell,
    run_seconds: float,
    startup: float,
    processes: int,
    *,
    quick: bool = False,
    slow_seconds: float = SECONDS,
    memory: bool = True,
) -> Planned:
    """Return how a cell is sampled and how long that takes, from the seconds of a run and of starting a process."""
    effort = effort_for(cell.batch, run_seconds, processes, quick=quick, slow_seconds=slow_seconds)
    each = startup + _lasts(effort, run_seconds) + _lasts(OWN_RUNS, run_seconds)
    more = startup + 2 * run_seconds if memory else 0.0
    return Planned(cell, effort, processes * each + more, processes)


def look_seconds(run_seconds: float) -> float:
    """Return what a first look at a batch takes, without the start of its process."""
    return _lasts(FIRST_LOOK, run_seconds) if run_seconds <= FIRST_LOOK.hard_seconds else 0.0


def _lasts(effort: Effort, run_seconds: float) -> float:
    """Return the seconds that a process warms up, at most, and samples: whole runs, the last begun before the end."""
    window = _sampled(WINDOW, run_seconds) * run_seconds
    warmup = (math.floor(effort.warmup_seconds / window) + 1) * window
    return warmup + _sampled(effort, run_seconds) * run_seconds


def _sampled(effort: Effort, run_seconds: float) -> int:
    soft = max(effort.enough, math.ceil(effort.soft_seconds / run_seconds))
    return max(1, min(effort.samples, soft, math.ceil(effort.hard_seconds / run_seconds)))


def _run(
    planned: Sequence[Planned], deadline: Deadline, seed: int, say: Progress
) -> tuple[dict[Cell, list[dict[str, Any]]], list[LeftOut]]:
    """Return what the processes of each cell gave; a cell that fails once is not tried again."""
    names = {str(index): plan for index, plan in enumerate(planned)}
    found: dict[Cell, list[dict[str, Any]]] = {plan.cell: [] for plan in planned}
    failed: dict[Cell, LeftOut] = {}
    rounds = max((plan.processes for plan in planned), default=0)
    left = {name: plan.processes for name, plan in names.items()}
    order = []
    for name in random_order(list(names), rounds, seed):
        if left[name] > 0:
            left[name] -= 1
            order.append(name)
    for done, plan in enumerate(names[name] for name in order):
        cell = plan.cell
        if cell in failed:
            continue
        if deadline.seconds_left < plan.seconds / plan.processes:  # it would end too late
            if not found[cell]:
                failed[cell] = LeftOut(str(cell), deadline.why)
            continue
        try:
            found[cell].append(time_in_fresh_process(cell.spec(plan.effort)))
        except (FlyweightError, FlyweightBug) as error:
            failed[cell], found[cell] = LeftOut(str(cell), _why(error)), []
        say("cells", done + 1, len(order))
    return found, list(failed.values())


def _memories(cells: Iterable[Cell], deadline: Deadline, say: Progress) -> tuple[dict[Cell, Memory], list[LeftOut]]:
    """Return the memory of each cell, of one process each, over one that only imports its backend."""
    found: dict[Cell, Memory] = {}
    left_out: list[LeftOut] = []
    empty: dict[str, int] = {}
    wanted = list(cells)
    for done, cell in enumerate(wanted):
        if deadline.seconds_left <= 0:
            left_out.append(LeftOut(f"memory of {cell}", deadline.why))
            continue
        try:
            found[cell] = peak_memory(
                cell.file, threads=cell.threads, backend=cell.backend, batch=cell.batch, repeats=1,
                empty_bytes=empty.get(cell.backend),
            )  # fmt: skip
            empty[cell.backend] = found[cell].empty_bytes
        except FlyweightError as error:
            left_out.append(LeftOut(f"memory of {cell}", error.what))
        say("memory", done + 1, len(wanted))
    return found, left_out


def _timed(plan: Planned, runs: Sequence[dict[str, Any]], memory: Memory | None, wanted: int) -> Timed:
    clocks, spec = [run["clocks"] for run in runs], plan.cell.spec(plan.effort)
    by_clock = {clock: latency_of(str(plan.cell), clock, spec, clocks, wanted) for clock in spec.clocks}
    rates = tuple(row["images_per_second"] for run in runs for row in run["throughput"])
    return Timed(plan.cell, by_clock[MODEL], by_clock.get(DEVICE), rates, memory)
