"""`fit` from beginning to end. Each stage is one call; each leaves files from which a stopped run continues."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight.data.audit import Audit, audit
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import Split, open_test, split_from_rule
from flyweight.errors import BudgetError, OutputError
from flyweight.export.bundle import record_accuracy
from flyweight.files import write_json
from flyweight.fit.candidates import candidates_for
from flyweight.fit.contest import Contest, Outcome, Progressed, compete
from flyweight.fit.extend import changes, load_start
from flyweight.fit.pick import Pick, choose, weigh_finalists
from flyweight.fit.pretrained import FEW, pretrained_candidates
from flyweight.fit.runtimes import choose_runtime, known_runtimes
from flyweight.fit.shrink import shrink
from flyweight.fit.story import tell
from flyweight.fit.weigh import Weighed, refuse_untimed, weigh
from flyweight.measure.accuracy import Accuracy, score
from flyweight.measure.budget import Budget
from flyweight.measure.device import Device, load_device, refuse_unmeasured
from flyweight.measure.verify import logits_of
from flyweight.report import build_report
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.predict import Predictor
from flyweight.train.prepare import Progress, native_shape, split_for
from flyweight.train.recipe import DataPart, Recipe
from flyweight.train.trained import Trained


@dataclass(frozen=True)
class FitRequest:
    """What the user asked for.

    Attributes:
        data: Any source of the catalogue.
        out: Folder for bundle/, report.html, report.json and the work of the run.
        minutes: Time for training, on this machine; the rest takes about a minute more.
        threads: Of the measured inference; the pick is timed with fewer too.
        recipe: Trains every candidate in place of the defaults (its model and image size are replaced).
        start: Bundle to continue from, with new images or classes.
        runtimes: That the pick is timed on, of `fit.runtimes.OFFERED`; None: all that are installed.
        compress: Steps that the pick is compressed by, if their trial says ship; as `flyweight compress --step`.
        command: The command line, for the record.
    """

    data: str
    budget: Budget
    out: Path
    minutes: float = 10.0
    threads: int = 1
    seed: int = 0
    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    group: str | None = None
    recipe: Recipe | None = None
    start: Path | None = None
    runtimes: tuple[str, ...] | None = None
    compress: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage began, or has something to say: shown to people as it comes."""

    name: str
    text: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Fitted:
    """The end: a bundle, its measurements and the report."""

    bundle: Bundle
    pick: Pick
    test: Accuracy
    report: Path
    outcomes: tuple[Outcome, ...] = field(default=())


def fit(request: FitRequest, *, progress: Progress | None = None) -> Iterator[Stage | Progressed | Fitted]:
    """Yield progress, and `Fitted` last. The same request continues where a stopped one was.

    Args:
        progress: Called with (done, total) of what is long inside one stage: images looked at, models timed.

    Raises:
        DataError: The images cannot be used.
        BudgetError: Nothing fits; the message says which limit binds and what would have to give.
        DeviceError: The budget is for a device without measurements.
        OutputError: The folder cannot be written.
    """
    device = load_device(request.budget.device)
    refuse_unmeasured(request.budget, device)
    _check_room(request.out)
    yield Stage("data", f"reading {request.data}")
    old, initial = load_start(request.start) if request.start else (None, None)
    dataset, parts, findings = _data(request, old, progress)
    yield Stage("data", f"{len(parts.train):,} train, {len(parts.val):,} val, {len(parts.test):,} sealed test images")
    few = len(parts.train) <= FEW * len(dataset.classes)
    entrants, weighed = yield from _weigh(request, dataset, device, few, initial, progress)
    outcomes: list[Outcome] = []
    contest = Contest(
        dataset,
        parts,
        request.out / "work",
        metric=request.budget.maximize,
        channels=native_shape(dataset)[1],
        seed=request.seed,
        seconds=request.minutes * 60.0,
        base=request.recipe,
        initial=initial,
    )
    for event in compete(contest, entrants):
        if isinstance(event, list):
            outcomes = event
        else:
            yield event
    yield Stage("measure", "exporting and measuring the finalists")
    finalists = weigh_finalists(
        outcomes, dataset, parts, request.budget, request.out / "work" / "bundles", threads=request.threads
    )
    pick = choose(finalists, request.budget)
    if request.compress:
        pick = yield from _shrink(request, pick, dataset)
    pick = yield from _run(request, pick, dataset)
    yield Stage("test", "opening the test part, once, with the shipped file")
    bundle, test, logits = _ship(request, pick, dataset, parts)
    facts = tell(request, dataset, parts, findings, weighed, outcomes, pick, bundle, test, logits)
    if old is not None:
        compared = changes(old, bundle.classes, dataset, parts.test, logits)
        facts = facts.model_copy(update={"verdicts": (*facts.verdicts, *compared)})
    files = build_report(facts, request.out)
    yield Fitted(bundle, pick, test, files.html, tuple(outcomes))


def _run(request: FitRequest, pick: Pick, dataset: Dataset) -> Generator[Stage, None, Pick]:
    runtimes = known_runtimes() if request.runtimes is None else request.runtimes
    said = choose_runtime(
        pick, runtimes, dataset, request.budget, request.out / "work" / "runtimes", threads=request.threads
    )
    return (yield from _told("runtime", said))


def _shrink(request: FitRequest, pick: Pick, dataset: Dataset) -> Generator[Stage, None, Pick]:
    said = shrink(
        pick, request.compress, dataset, request.budget, request.out / "work" / "compressed", threads=request.threads
    )
    return (yield from _told("compress", said))


def _told(stage: str, said: Generator[str, None, Pick]) -> Generator[Stage, None, Pick]:
    while True:
        try:
            yield Stage(stage, next(said))
        except StopIteration as end:
            found: Pick = end.value
            return found


def _data(request: FitRequest, old: Bundle | None, progress: Progress | None) -> tuple[Dataset, Split, Audit]:
    dataset = load_data(request.data, group=request.group)
    part = (request.recipe or Recipe()).data if request.recipe else DataPart()
    findings = audit(dataset, progress=progress)
    if findings.unreadable:
        dataset = dataset.without(findings.unreadable)
    write_json(request.out / "audit.json", findings.to_json())
    # A continued bundle keeps its split: what it learned from never becomes a test image.
    parts = split_from_rule(dataset, old.split) if old is not None else split_for(dataset, part)
    return dataset, parts, findings


def _weigh(
    request: FitRequest, dataset: Dataset, device: Device, few: bool, initial: Trained | None, progress: Progress | None
) -> Generator[Stage, None, tuple[list[Weighed], list[Weighed]]]:
    """Yield progress; return (candidates within budget, all candidates weighed)."""
    side, channels = native_shape(dataset)
    models, sizes = request.models, request.sizes
    if initial is not None:
        models = models or (initial.architecture.name,)
        sizes = sizes or (initial.architecture.image_size,)
    candidates = candidates_for(side, models, sizes)
    if initial is None and request.recipe is None and few:
        file = request.out / "work" / "weights.json"
        pretrained = pretrained_candidates(dataset, file, models=models, sizes=sizes, seed=request.seed)
        candidates += pretrained.candidates
        for name, why in pretrained.skipped.items():
            yield Stage("weigh", f"the weights {name} are not tried: {why}")
    shape = {"channels": channels, "num_classes": len(dataset.classes), "threads": request.threads}
    refuse_untimed(candidates, request.budget, device, **shape)
    how = "timing" if device.is_host else f"counting, with the times of {device.name},"
    yield Stage("weigh", f"{how} {len(candidates)} untrained candidates", 0, len(candidates))
    weighed = weigh(
        candidates,
        request.budget,
        request.out / "work" / "untrained",
        **shape,
        base=request.recipe,
        device=device,
        progress=progress,
    )
    within = [candidate for candidate in weighed if candidate.within]
    if not within:
        raise nothing_fits(request.budget, weighed)
    entrants = within if device.is_host else _timed_only(within)
    said = f"{len(weighed) - len(within)} of {len(weighed)} candidates are over budget and not trained"
    if len(entrants) < len(within):
        said += f", nor {len(within) - len(entrants)} that {device.name} has not timed"
    yield Stage("weigh", said, len(weighed), len(weighed))
    return entrants, weighed


def _timed_only(within: list[Weighed]) -> list[Weighed]:
    """Return those whose limits could all be checked; all, to be called unverified, where there is none."""
    return [candidate for candidate in within if candidate.verified] or within


def nothing_fits(budget: Budget, weighed: list[Weighed]) -> BudgetError:
    """Say which limit binds, and which candidate misses it by least."""

    def excess(candidate: Weighed) -> float:
        return max((check.value or 0.0) / check.limit for check in candidate.checks if check.status == "violated")

    nearest = min(weighed, key=excess)
    broken = [check for check in nearest.checks if check.status == "violated"]
    counts = {
        metric: sum(any(c.metric == metric and c.status == "violated" for c in w.checks) for w in weighed)
        for metric in {check.metric for w in weighed for check in w.checks if check.status == "violated"}
    }
    binding = ", ".join(f"{metric} rejects {count} of {len(weighed)}" for metric, count in sorted(counts.items()))
    gives = ", ".join(f"{check.metric}<{check.shown_value}" for check in broken)
    return BudgetError(
        f"nothing meets the budget {budget.text!r}: {binding}; nearest is {nearest.candidate.name}",
        do=f"allow {gives} for it, or name smaller networks or sizes (--models tiny_cnn_4 --sizes 12)",
    )


def _ship(
    request: FitRequest, pick: Pick, dataset: Dataset, parts: Split
) -> tuple[Bundle, Accuracy, NDArray[np.float32]]:
    """Test the picked file, record that in the bundle, and put the bundle where the user looks for it."""
    bundle = pick.winner.bundle
    open_test(request.out / "test-openings.jsonl", why=f"fit: the pick {pick.winner.name}, {bundle.variant().name}")
    logits, _, unreadable = logits_of(Predictor(bundle, threads=usable_cores()), dataset, parts.test)
    assert not unreadable, "unreadable images were left out by the audit"
    test = score(logits, dataset.labels[parts.test], bundle.classes, bundle.temperature)
    return record_accuracy(bundle, test.to_json(), request.out / "bundle"), test, logits


def _check_room(out: Path) -> None:
    """Find out now, not in half an hour, that the folder cannot be written."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out {str(out)!r} is a file", do="name a folder")
    write_json(out / ".writable", {})
    (out / ".writable").unlink()
