"""Which runtime, precision and number of threads runs the pick fastest on this machine, and loses no accuracy.

Every way is a file of its own, written and checked as `flyweight convert` and `flyweight compress` do it. All are timed
in turn; the quickest are timed again at length beside the file that `fit` would ship anyway. A float file computes the
same function, which its conversion has shown, so it has to be faster alone; a lower precision must pass a trial on the
validation images too.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flyweight.compress.files.variant import add_untried
from flyweight.compress.step import Step
from flyweight.data.dataset import Dataset
from flyweight.errors import FlyweightError
from flyweight.export.bundle import run_as
from flyweight.export.convert import convert
from flyweight.export.images import RealImages, real_images
from flyweight.fit.pick import Finalist, Pick, Way
from flyweight.measure.accuracy import score
from flyweight.measure.budget import Budget
from flyweight.measure.device import HOST
from flyweight.measure.latency import LatencyResult
from flyweight.measure.replace import may_replace
from flyweight.measure.trial import Answers, Range, answers_of, decided_by, sample_of, speed_of, time_all
from flyweight.runtime.backends import DEFAULT, installed
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.memory import peak_memory

# Runtimes that a device can have without torch, and what they are offered in. ONNX Runtime's float file is the pick's.
OFFERED: dict[str, tuple[str, ...]] = {
    DEFAULT: ("int8",),
    "openvino": ("fp32", "bf16", "int8"),
    "litert": ("fp32", "int8"),
}
SUFFIXES = {DEFAULT: ".onnx", "openvino": ".xml", "litert": ".tflite"}
FINALISTS = 3  # are timed at length beside the pick's own file

Arm = tuple[str, int]  # variant, threads


@dataclass(frozen=True)
class Contest:
    """The files that run the pick, and what was refused.

    Attributes:
        pick: The pick's own file on ONNX Runtime.
        answers: Of every file on the validation images, by the name of its variant, the pick's own first.
        refused: Ways that are out before any timing.
    """

    pick: Answers
    answers: dict[str, Answers]
    refused: tuple[Way, ...]


def known_runtimes() -> tuple[str, ...]:
    """Return the runtimes that this machine has of those that are tried."""
    return tuple(name for name in OFFERED if name in installed(SUFFIXES[name]))


def choose_runtime(
    pick: Pick, runtimes: Sequence[str], dataset: Dataset, budget: Budget, folder: Path, *, threads: int
) -> Generator[str, None, Pick]:
    """Yield what is said; return the pick with the fastest way to run it that holds its accuracy and the budget.

    Args:
        runtimes: Of `OFFERED`; those that are not installed are left out and said.
        folder: For the files that are tried.
        threads: At most so many; powers of two up to it, and it, are timed.
    """
    if budget.device != HOST:
        told = (
            f"No runtime was chosen: the budget is for {budget.device} (flyweight device pick, once it has timed this)."
        )
        yield told
        return replace(pick, why=(*pick.why, told))
    contest = yield from _files(pick.winner.bundle, runtimes, dataset, budget, folder)
    arms = [(name, count) for name in contest.answers for count in _counts(threads)]
    if len(arms) == 1:
        return replace(pick, ways=contest.refused, threads=threads)
    yield f"timing {len(arms)} ways to run it: {', '.join(contest.answers)}; threads {_listed(_counts(threads))}"
    own = (contest.pick.variant.name, threads)
    quick = _timed(contest, arms, dataset, quick=True)
    fastest = sorted((arm for arm in arms if arm != own), key=lambda arm: _p50(quick[arm]))
    close = [own, *(arm for arm in fastest[:FINALISTS] if _p50(quick[arm]) < _p50(quick[own]))]
    long = _timed(contest, close, dataset, quick=False) if len(close) > 1 else {}
    ways, able = _judged(contest, close, quick | long, dataset)
    shown = (*ways, *(_way(contest, arm, quick[arm], "not among the quickest") for arm in arms if arm not in close))
    changed = replace(pick, threads=threads, ways=(*sorted(shown, key=lambda way: way.p50_ms or 0.0), *contest.refused))
    if not able:
        told = f"No other way to run it is shown to be faster than {_named(ways[0])} and as accurate."
        yield told
        return replace(changed, why=(*pick.why, told))
    return (yield from _shipped(changed, able, contest, long, budget, folder))


def _files(
    bundle: Bundle, runtimes: Sequence[str], dataset: Dataset, budget: Budget, folder: Path
) -> Generator[str, None, Contest]:
    """Yield what is said; return the files that could be made and are within the limits that hold without a clock."""
    _, indices = decided_by(bundle, dataset, "val")
    own = answers_of(bundle, None, dataset, indices)
    answers, refused = {own.variant.name: own}, []
    images: RealImages | None = None
    for runtime in runtimes:
        for precision in OFFERED[runtime]:
            name = f"{runtime} {precision}"
            if runtime not in known_runtimes():
                refused.append(_refused(runtime, precision, f"{runtime} is not installed"))
                continue
            yield f"writing the {precision} file for {runtime}"
            try:
                images = images or real_images(bundle, dataset)
                made = _made(bundle, runtime, precision, images, dataset, folder / name.replace(" ", "-"))
                found = answers_of(made, None, dataset, indices)
            except FlyweightError as error:
                refused.append(_refused(runtime, precision, error.what))
                continue
            broken = [
                check for check in budget.check({"size": float(found.variant.size_bytes)}) if check.status == "violated"
            ]
            if broken:
                size = f"{found.variant.size_bytes:,} bytes are over the limit of {broken[0].shown_limit}"
                refused.append(_refused(runtime, precision, size))
                continue
            answers[found.variant.name] = found
    return Contest(own, answers, tuple(refused))


def _made(bundle: Bundle, runtime: str, precision: str, images: RealImages, dataset: Dataset, folder: Path) -> Bundle:
    if runtime == DEFAULT:
        return add_untried(Step(method=precision), bundle, dataset, folder)
    return convert(bundle, runtime, folder, precision=precision, images=images, default=True).bundle


def _counts(threads: int) -> list[int]:
    return sorted({count for count in (1, 2, 4, 8, 16, 32) if count < threads} | {threads})


def _timed(contest: Contest, arms: Sequence[Arm], dataset: Dataset, *, quick: bool) -> dict[Arm, LatencyResult]:
    specs = {f"{name} x{count}": contest.answers[name].spec(count) for name, count in arms}
    sample = sample_of(contest.pick.bundle, dataset, contest.pick.readable)
    found = time_all(specs, sample, quick=quick)
    return {arm: found[f"{arm[0]} x{arm[1]}"] for arm in arms}


def _judged(
    contest: Contest, arms: Sequence[Arm], times: Mapping[Arm, LatencyResult], dataset: Dataset
) -> tuple[list[Way], list[Arm]]:
    """Return the ways that were timed at length, the pick's own first; and those that may ship, the fastest first."""
    own, *others = arms
    ways, able = [_way(contest, own, times[own], "the pick's own file", ships=True)], []
    for arm in sorted(others, key=lambda arm: _p50(times[arm])):
        answers = contest.answers[arm[0]]
        speed = speed_of(times[own], times[arm], branches=answers.branches)
        found = may_replace(contest.pick, answers, dataset, "validation part", speed)
        ways.append(_way(contest, arm, times[arm], found.because, ships=found.ships, change=found.change))
        if found.ships:
            able.append(arm)
    return ways, able


def _way(
    contest: Contest,
    arm: Arm,
    latency: LatencyResult,
    because: str,
    *,
    ships: bool = False,
    change: Range | None = None,
) -> Way:
    side, quantile = contest.answers[arm[0]].side, latency.quantile(0.5)
    return Way(
        variant=arm[0],
        backend=side.backend,
        precision=side.precision,
        threads=arm[1],
        size_bytes=side.size_bytes,
        p50_ms=quantile.ms,
        p50_low_ms=quantile.low_ms,
        p50_high_ms=quantile.high_ms,
        change=(change.value, change.low, change.high) if change else None,
        ships=ships,
        because=because,
    )


def _refused(runtime: str, precision: str, because: str) -> Way:
    return Way(f"{runtime}-{precision}", runtime, precision, None, None, None, None, None, None, False, because)


def _shipped(
    pick: Pick,
    able: Sequence[Arm],
    contest: Contest,
    times: Mapping[Arm, LatencyResult],
    budget: Budget,
    folder: Path,
) -> Generator[str, None, Pick]:
    """Return the pick as the fastest of these ways runs it that breaks no limit of the budget."""
    before, why = pick.winner, pick.why
    for arm in able:
        way = next(one for one in pick.ways if (one.variant, one.threads) == arm)
        finalist = _measured(before, contest.answers[arm[0]], times[arm], arm[1], budget)
        broken = [check for check in finalist.checks if check.status == "violated"]
        if broken:
            told = f"{_named(way)} is faster, and breaks the limit of {broken[0].metric} ({broken[0].shown_value})."
            yield told
            why = (*why, told)
            continue
        told = f"It runs as {_named(way)}, because {way.because}."
        yield told
        shipped = replace(finalist, bundle=run_as(finalist.bundle, arm[0], arm[1], folder / "shipped"))
        others = (other for other in pick.finalists if other is not before)
        return replace(pick, winner=shipped, finalists=(shipped, *others), why=(*why, told), threads=arm[1])
    return replace(pick, why=why)


def _measured(before: Finalist, answers: Answers, latency: LatencyResult, threads: int, budget: Budget) -> Finalist:
    """Return the finalist with what it costs when it runs that way."""
    memory = peak_memory(answers.variant.file, threads=threads, backend=answers.side.backend)
    values = before.values | {
        "latency_p50": latency.p50_ms,
        "latency_p90": latency.p90_ms,
        "latency_p99": latency.p99_ms,
        "size": float(answers.side.size_bytes),
        "memory": float(memory.peak_bytes),
        "memory_increment": float(memory.increment_bytes),
    }
    return replace(
        before,
        bundle=answers.bundle,
        validation=score(answers.logits, answers.labels, answers.bundle.classes, answers.bundle.temperature),
        right=answers.logits.argmax(axis=1) == answers.labels,
        values=values,
        latency=latency.as_dict(),
        checks=tuple(budget.check(values, measured_on=budget.device)),
    )


def _named(way: Way) -> str:
    return f"{way.precision} on {way.backend} with {way.threads} thread{'s' * (way.threads != 1)}"


def _p50(latency: LatencyResult) -> float:
    return latency.p50_ms if latency.p50_ms is not None else float("inf")


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))
