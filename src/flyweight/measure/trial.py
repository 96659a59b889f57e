"""Compression as a non-inferiority trial: ship, or do not ship, because …

The compressed file and the one it would replace answer the same images and are timed in turn on this machine. It ships
only if the lower end of the paired interval of its accuracy change lies above −margin *and* it is what it promised to
be: really smaller, measured faster. "No difference found" is no argument: with few images none ever is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from flyweight.data.dataset import Dataset
from flyweight.data.split import split_from_rule
from flyweight.errors import DataError
from flyweight.measure.exit_speed import ALL, EARLY, LATE, Kinds, leaves_early, mean_time, ratio_of, time_kinds
from flyweight.measure.latency import FULL, QUICK, Clock, LatencyResult, time_specs
from flyweight.measure.statistics import Interval, holm, mcnemar_exact, ratio_interval, tango, wilson
from flyweight.measure.verify import logits_of, sealed_part
from flyweight.runtime.bundle import Bundle, Variant
from flyweight.runtime.environment import environment, usable_cores
from flyweight.runtime.operators import Operator, computed, heavy_in_float, left_in_float, operators
from flyweight.runtime.predict import Predictor
from flyweight.runtime.timing import MODEL, Spec, time_in_fresh_process

MARGIN = 0.01  # of the images: what may be lost at most, with 95 % confidence
ALPHA = 0.05
SHOWN_FLIPS = 200  # listed by name; all are counted
TIMED_IMAGES = 64

Promise = Literal["smaller", "faster"]
BOTH: tuple[Promise, ...] = ("smaller", "faster")
_FINER = {"fp32": 2, "bf16": 1, "fp16": 1}  # than int8, and than what is not here


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Row):
    """A value with its 95 % interval; an end is null where nothing bounds it."""

    value: float
    low: float | None
    high: float | None


class Side(_Row):
    """One of the two files.

    Attributes:
        accuracy: Share of the images whose top-1 class is right.
        operators: How many operators the runtime computes in each type; empty where it does not say.
        layers: How many of them multiply weights; null where neither the runtime nor the file's record says.
        in_float: Of an int8 file: what multiplies weights in float all the same, by kind and name.
        unmeant: Those of `in_float` that nobody meant to stay in float, and that do not give the logits.
    """

    name: str
    precision: str
    backend: str
    size_bytes: int
    accuracy: float
    operators: dict[str, int] = {}
    layers: int | None = None
    in_float: tuple[str, ...] = ()
    unmeant: tuple[str, ...] = ()


class ClassChange(_Row):
    """One class: share of its images that are right before and after, with the paired interval of the change.

    Attributes:
        p: Exact McNemar, after Holm over the classes.
        regressed: Fewer are right, and that is no chance (p below 5 %).
    """

    name: str
    n: int
    before: float
    after: float
    change: Range
    p: float
    regressed: bool


class Flip(_Row):
    """An image whose top-1 class changed. `kind`: lost (was right), gained (is right now), other (wrong both times)."""

    image: str
    label: str
    before: str
    after: str
    kind: Literal["lost", "gained", "other"]


class Speed(_Row):
    """Both files timed in turn, in fresh processes, one image at a time by the model clock.

    Attributes:
        statistic: median of each process; mean where the time depends on the image (early exit): images that leave
            early and the others are timed apart, and weighed by their share.
        ratio: Time of the compressed over that of the other: below 1 is faster.
        noise_floor: Relative difference this machine shows between a file and itself; null when quick.
        disturbed: Other programs had the processor a tenth of the time or more: the ratio then says little.
        verdict: faster only where the interval and the noise floor say so.
        left_early: Share of the images that decided which leave early, where one of the files has an exit.
    """

    statistic: Literal["median", "mean"]
    before_ms: float
    after_ms: float
    ratio: Range
    n: int
    threads: int
    noise_floor: float | None
    disturbed: bool
    verdict: Literal["faster", "slower", "no difference"]
    left_early: Range | None = None


class Trial(_Row):
    """What `flyweight compress --json` prints of a compressed file against the one it would replace.

    Attributes:
        part: Which images decided.
        margin: Share of the images that may be lost.
        change: Of the accuracy, paired, with Tango's score interval.
        p: Exact McNemar, of no change.
        agreement: Top-1 agreement: share of images to which both files give the same class.
        flips: Some of the `flipped` images, those that were lost first.
        size_ratio: Bytes of the compressed file over those of the other.
        promises: What it must be besides not worse.
        ship: The verdict; `because` says why, in sentences.
    """

    name: str
    before: Side
    after: Side
    part: str
    n: int
    margin: float
    change: Range
    p: float
    agreement: float
    per_class: tuple[ClassChange, ...]
    flipped: int
    flips: tuple[Flip, ...]
    size_ratio: float
    speed: Speed | None
    promises: tuple[Promise, ...]
    ship: bool
    because: tuple[str, ...]
    conditions: dict[str, Any] = {}

    def record(self) -> dict[str, Any]:
        """Return what the provenance of a bundle says of it."""
        return {"ship": self.ship, "because": list(self.because), "part": self.part, "n": self.n}

    def verdict(self) -> str:
        """Return the verdict in one sentence."""
        return f"{'ship' if self.ship else 'do not ship'}, because {'; '.join(self.because)}"


def promised_by(before: Side, after: Side) -> tuple[Promise, ...]:
    """Return what a file is for, besides being no worse, from what it is beside the one it would replace.

    Another runtime in the same or a lower precision: to be faster. Weights kept in fewer bits and computed in float
    (fp16, palettes): to be smaller. Anything else: both.
    """
    if after.backend != before.backend and _FINER.get(after.precision, 0) <= _FINER.get(before.precision, 0):
        return ("faster",)
    if after.precision != before.precision and (after.precision == "fp16" or after.precision.startswith("palette")):
        return ("smaller",)
    return BOTH


def run_trial(
    before: tuple[Bundle, str | None],
    after: tuple[Bundle, str | None],
    dataset: Dataset,
    *,
    part: Literal["val", "test"] = "val",
    margin: float = MARGIN,
    promises: Sequence[Promise] | None = None,
    threads: int = 1,
    timing: Literal["full", "quick", "none"] = "full",
    progress: Callable[[int, int], None] | None = None,
) -> Trial:
    """Return the trial of one variant of a bundle against another, through the runtimes that they name.

    Any format takes part whose variant names a backend of `runtime.backends`.

    Args:
        before: Bundle and variant of what would be replaced; None: its default variant.
        after: The compressed one; both may be of the same bundle.
        part: val: the images that the run validated on; test: the sealed part, which the caller logs as opened.
        promises: What it must be besides not worse; None: as `promised_by` says of the two.
        timing: none: speed is then unknown, and nothing ships that promised to be faster.

    Raises:
        BundleError: A file cannot be loaded.
        DataError: There are no such images, or they have other classes.
    """
    where, indices = decided_by(before[0], dataset, part)
    was, now = (answers_of(bundle, name, dataset, indices) for bundle, name in (before, after))
    speed = None
    if timing != "none":
        sample, quick = sample_of(before[0], dataset, was.readable), timing == "quick"
        specs = {"before": was.spec(threads), "after": now.spec(threads)}
        if was.branches or now.branches:
            kinds = [kinds_of(one, dataset, sample) for one in (was, now)]
            sides = {name: (spec, own) for (name, spec), own in zip(specs.items(), kinds, strict=True)}
            results = time_kinds(sides, quick=quick, progress=progress)
            speed = speed_of_kinds(results["before"], results["after"], (kinds[0].leaving, kinds[1].leaving))
        else:
            speed = time_both(specs, sample, quick=quick, progress=progress)
    return trial_of(was, now, dataset, part=where, margin=margin, speed=speed, promises=promises)


@dataclass(frozen=True)
class Answers:
    """What a variant of a bundle answers on images of a data set.

    Attributes:
        logits: (N, K) float32.
        labels: (N,), indices into the classes of the bundle.
        readable: (N,), which images of the data set these are: those that could be read.
        branches: The time it takes depends on the image.
    """

    bundle: Bundle
    variant: Variant
    side: Side
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    readable: NDArray[np.int64]
    branches: bool

    def spec(self, threads: int) -> Spec:
        """Return what is timed."""
        return Spec(str(self.variant.file), self.variant.backend, threads)


def answers_of(bundle: Bundle, variant: str | None, dataset: Dataset, indices: NDArray[np.int64]) -> Answers:
    """Return what a variant answers on images of the data set, through the runtime that it names.

    Raises:
        BundleError: The file cannot be loaded.
        DataError: None of the images can be read.
    """
    chosen = bundle.variant(variant)
    runs = operators(chosen.file, chosen.backend)
    predictor = Predictor(bundle, variant=chosen.name, threads=usable_cores())
    logits, readable, _ = logits_of(predictor, dataset, indices)
    if not len(readable):
        raise DataError(
            f"none of the {len(indices)} images of {dataset.name!r} can be read", do="flyweight data check says why"
        )
    labels = np.array([bundle.classes.index(dataset.classes[i]) for i in dataset.labels[readable]])
    side = Side(
        name=f"{bundle.name} {chosen.name}",
        precision=chosen.precision,
        backend=chosen.backend,
        size_bytes=chosen.size_bytes,
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
        operators=computed(runs),
        **_multiplied(bundle, chosen, runs),
    )
    return Answers(bundle, chosen, side, logits, labels, readable, any(one.op == "If" for one in runs))


def trial_of(
    before: Answers,
    after: Answers,
    dataset: Dataset,
    *,
    part: str,
    margin: float = MARGIN,
    speed: Speed | None,
    promises: Sequence[Promise] | None = None,
) -> Trial:
    """Return the trial of two files from what they answered on the same images of the data set."""
    return judge(
        before.side,
        after.side,
        logits=(before.logits, after.logits),
        labels=before.labels,
        classes=before.bundle.classes,
        images=[dataset.images.key(int(index)) for index in before.readable],
        part=part,
        margin=margin,
        speed=speed,
        promises=promises,
    )


def judge(
    before: Side,
    after: Side,
    *,
    logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    images: Sequence[str],
    part: str,
    margin: float,
    speed: Speed | None,
    promises: Sequence[Promise] | None = None,
) -> Trial:
    """Return the trial of two files from what they answered.

    Args:
        promises: None: as `promised_by` says of the two.
        logits: (N, K) each, of the same images.
        labels: (N,), indices into `classes`.
        images: Their N names.
    """
    promises = promised_by(before, after) if promises is None else promises
    first, second = (one.argmax(axis=1) for one in logits)
    was, now = first == labels, second == labels
    gained, lost = int((now & ~was).sum()), int((was & ~now).sum())
    change = tango(gained, lost, len(labels))
    per_class = _per_class(was, now, labels, classes)
    flips = _flips(first, second, labels, classes, images)
    ratio = after.size_bytes / before.size_bytes
    found = Range(value=change.value, low=change.low, high=change.high)
    ship, because = _decide(before, after, found, margin, per_class, ratio, speed, promises)
    return Trial(
        name=after.name,
        before=before,
        after=after,
        part=part,
        n=len(labels),
        margin=margin,
        change=found,
        p=mcnemar_exact(gained, lost),
        agreement=float((first == second).mean()),
        per_class=per_class,
        flipped=len(flips),
        flips=tuple(flips[:SHOWN_FLIPS]),
        size_ratio=ratio,
        speed=speed,
        promises=tuple(promises),
        ship=ship,
        because=because,
        conditions=environment(),
    )


def _decide(
    before: Side,
    after: Side,
    change: Range,
    margin: float,
    per_class: Sequence[ClassChange],
    size_ratio: float,
    speed: Speed | None,
    promises: Sequence[Promise],
) -> tuple[bool, tuple[str, ...]]:
    """Return the verdict, and the reasons for it alone: against shipping, or where there are none, for it."""
    assert change.low is not None
    assert change.high is not None
    points = f"{100 * change.value:+.2f} points [{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
    unknown: list[str] = []  # is said whatever the verdict
    against, favour = [], [f"the accuracy changes by {points}, and at most {100 * margin:g} points may be lost"]
    if change.low <= -margin:
        kind = "is worse" if change.high < -margin else "may be worse"
        against.append(f"it {kind} than the margin of {100 * margin:g} points: the accuracy changes by {points}")
    for row in per_class:
        if row.regressed and row.change.high is not None and row.change.high < -margin:
            against.append(f"the class {row.name!r} loses {-100 * row.change.value:.1f} points (p = {row.p:.2g})")
    if "smaller" in promises:
        (against if size_ratio >= 1.0 else favour).append(
            f"its file has {after.size_bytes:,} bytes, {size_ratio:.2f} of the {before.size_bytes:,} before"
        )
    _weigh_integers(after, against, unknown)
    _weigh_speed(speed, promises, against, favour, unknown)
    return (not against, tuple((against or favour) + unknown))


def _weigh_integers(after: Side, against: list[str], unknown: list[str]) -> None:
    """Judge an int8 file by what multiplies weights: every file takes bytes, so any computes something in integers."""
    if after.precision != "int8":
        return
    if after.layers is None:
        unknown.append(f"in what type {after.backend} computes is not known: neither it nor the file's record says")
    elif after.layers and len(after.in_float) >= after.layers:
        against.append(f"{after.backend} multiplies in float in all {after.layers} layers of the int8 file")
    elif after.unmeant:
        against.append(
            f"{after.backend} multiplies in float in {len(after.unmeant)} of {after.layers} layers that were to be "
            "int8: "
            f"{', '.join(after.unmeant[:3])}{' …' if len(after.unmeant) > 3 else ''}"
        )


def _weigh_speed(
    speed: Speed | None, promises: Sequence[Promise], against: list[str], favour: list[str], unknown: list[str]
) -> None:
    if speed is None:
        if "faster" in promises:
            against.append("it promised to be faster, and nothing was timed")
        else:
            unknown.append("nothing was timed: whether it is slower is not known")
        return
    if speed.noise_floor is None and not speed.disturbed:
        unknown.append("this machine's noise floor was not measured: the ratio's interval alone tells fast from slow")
    times = f"{speed.after_ms:.3g} ms against {speed.before_ms:.3g} ms"
    if speed.ratio.low is not None and speed.ratio.high is not None:
        times += f", ratio {speed.ratio.value:.2f} [{speed.ratio.low:.2f}, {speed.ratio.high:.2f}]"
    if speed.left_early is not None:
        times += f", {100 * speed.left_early.value:.0f} % of the images leave early"
    if speed.disturbed and not (speed.verdict == "no difference" and "faster" not in promises):
        against.append(f"other programs had the processor while it was timed ({times}): time it on a quiet machine")
    elif speed.verdict == "slower":
        against.append(f"it is slower here: {times}")
    elif speed.verdict == "no difference" and "faster" in promises:
        against.append(f"it is not measurably faster here: {times}")
    else:
        favour.append(f"it is {speed.verdict if speed.verdict == 'faster' else 'not slower'} here: {times}")


def time_both(
    specs: dict[str, Spec],
    images: NDArray[np.uint8],
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Speed:
    """Return how long two files take, timed in turn: `before` and `after` of `specs`.

    Args:
        images: (N, C, S, S) uint8 that both run, one at a time.
    """
    found = time_all(specs, images, quick=quick, progress=progress)
    return speed_of(found["before"], found["after"])


def time_all(
    specs: Mapping[str, Spec],
    images: NDArray[np.uint8],
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock = time_in_fresh_process,
) -> dict[str, LatencyResult]:
    """Return the latencies of files that are timed in turn, by the names of the specs; the first is timed twice.

    Args:
        images: (N, C, S, S) uint8 that all of them run, one at a time.
        clock: As `time_specs`.
    """
    with tempfile.TemporaryDirectory(prefix="flyweight-trial-") as folder:
        file = Path(folder) / "images.npy"
        np.save(file, images, allow_pickle=False)
        own = {name: replace(spec, images=str(file)) for name, spec in specs.items()}
        found = time_specs(own, QUICK if quick else FULL, progress=progress, clock=clock)
    return {name: clocks[MODEL] for name, clocks in found.items()}


def speed_of(before: LatencyResult, after: LatencyResult, *, branches: bool = False) -> Speed:
    """Return what two latencies say of each other.

    Args:
        branches: The time depends on the image: means over the images that were timed are compared, not medians. The
            interval then holds for these images alone; `speed_of_kinds` speaks for all.
    """
    each = [
        [float(np.mean(samples) if branches else np.median(samples)) for samples in result.samples_ms]
        for result in (before, after)
    ]
    ratio = ratio_interval(each[1], each[0])
    floor = before.noise_floor
    return Speed(
        statistic="mean" if branches else "median",
        before_ms=float(np.mean(each[0])),
        after_ms=float(np.mean(each[1])),
        ratio=Range(value=ratio.value, low=ratio.low, high=ratio.high if np.isfinite(ratio.high) else None),
        n=min(before.n, after.n),
        threads=after.threads,
        noise_floor=floor,
        disturbed=before.disturbed or after.disturbed,
        verdict=_beyond(ratio, floor),
    )


def speed_of_kinds(
    before: Mapping[str, LatencyResult],
    after: Mapping[str, LatencyResult],
    leaving: tuple[tuple[int, int] | None, tuple[int, int] | None],
) -> Speed:
    """Return what the latencies of two files, by kind of image, say of each other over all images.

    Args:
        leaving: Of each, how many images leave early and of how many; None without an exit.
    """
    first, second = mean_time(before, leaving[0]), mean_time(after, leaving[1])
    ratio, both = ratio_of(second, first), [*before.values(), *after.values()]
    floor = max((one.noise_floor for one in both if one.noise_floor is not None), default=None)
    counted = leaving[1] or leaving[0]
    assert counted is not None, "one of them has an exit"
    low, high = wilson(*counted)
    return Speed(
        statistic="mean",
        before_ms=first.ms,
        after_ms=second.ms,
        ratio=Range(value=ratio.value, low=ratio.low, high=ratio.high),
        n=min(one.n for one in both),
        threads=both[-1].threads,
        noise_floor=floor,
        disturbed=any(one.disturbed for one in both),
        verdict=_beyond(ratio, floor),
        left_early=Range(value=counted[0] / counted[1], low=low, high=high),
    )


def _beyond(ratio: Interval, floor: float | None) -> Literal["faster", "slower", "no difference"]:
    if abs(ratio.value - 1.0) > (floor or 0.0):
        if ratio.high < 1.0:
            return "faster"
        if ratio.low > 1.0:
            return "slower"
    return "no difference"


def _multiplied(bundle: Bundle, chosen: Variant, runs: tuple[Operator, ...]) -> dict[str, Any]:
    """Return `layers`, `in_float` and `unmeant` of a file: as the runtime says, or where it does not, as was noted."""
    exported = bundle.provenance
    own = exported.get("variants", {}).get(chosen.name, {})
    noted = tuple(own.get("in_float", ()))
    layers = (sum(one.heavy for one in runs) if runs else own.get("layers")) or None
    if chosen.precision != "int8":
        return {"layers": layers}
    if not runs:
        return {"layers": layers, "in_float": noted}
    unmeant = left_in_float(runs, meant=noted)
    # A file that training quantized names its layers by the path of their module: they can be counted alone.
    surgery = (own if "architecture" in own else {} if own else exported).get("architecture", {}).get("surgery", ())
    if len(unmeant) <= sum(len(step.get("keep_float", ())) for step in surgery):
        unmeant = ()
    return {"layers": layers, "in_float": heavy_in_float(runs), "unmeant": unmeant}


def decided_by(bundle: Bundle, dataset: Dataset, part: str) -> tuple[str, NDArray[np.int64]]:
    """Return which images decide, in words and as indices: val or test. Raises DataError."""
    unknown = sorted(set(dataset.classes) - set(bundle.classes))
    if unknown:
        raise DataError(
            f"the data {dataset.name!r} has the class {unknown[0]!r}, which the bundle {bundle.name!r} does not know",
            do="give the data that it was trained on",
        )
    if part == "test":
        return sealed_part(bundle, dataset)
    indices = split_from_rule(dataset, bundle.split).val if bundle.split else np.empty(0, np.int64)
    if not len(indices):
        raise DataError(
            f"the bundle {bundle.name!r} recorded no validation images of {dataset.name!r}",
            do="give the data it was trained on, or decide on the test part: --part test",
        )
    return "validation part", indices


def sample_of(bundle: Bundle, dataset: Dataset, readable: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a few of the images, evenly spaced, as the network takes them."""
    predictor = Predictor(bundle)
    return np.stack(
        [predictor.load(dataset.images.read(int(i)), dataset.images.key(int(i))) for i in _spaced(readable)]
    )


def kinds_of(answers: Answers, dataset: Dataset, sample: NDArray[np.uint8]) -> Kinds:
    """Return the images to time a file on: `sample`, or of an early exit those that leave it and those that stay.

    Raises:
        BundleError: It branches by something else.
    """
    if not answers.branches:
        return Kinds({ALL: sample})
    variant = answers.variant
    graph = variant if variant.format == "onnx" else answers.bundle.variant(variant.source)
    predictor = Predictor(answers.bundle)

    def load(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([predictor.load(dataset.images.read(int(i)), dataset.images.key(int(i))) for i in indices])

    readable = answers.readable
    parts = [readable[at : at + TIMED_IMAGES] for at in range(0, len(readable), TIMED_IMAGES)]
    early = np.concatenate([leaves_early(graph.file, load(part)) for part in parts])
    chosen = {kind: _spaced(readable[which]) for kind, which in ((EARLY, early), (LATE, ~early)) if which.any()}
    images = {kind: load(indices) for kind, indices in chosen.items()}
    return Kinds(images, (int(early.sum()), len(early)))


def _spaced(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = indices[np.linspace(0, len(indices) - 1, min(TIMED_IMAGES, len(indices))).astype(int)]
    return found


def _per_class(
    was: NDArray[np.bool_], now: NDArray[np.bool_], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassChange, ...]:
    present = [index for index in range(len(classes)) if (labels == index).any()]
    counts = []
    for index in present:
        own = labels == index
        counts.append((int((now & ~was & own).sum()), int((was & ~now & own).sum()), int(own.sum())))
    ps = holm([mcnemar_exact(gained, lost) for gained, lost, _ in counts])
    rows = []
    for index, (gained, lost, n), p in zip(present, counts, ps, strict=True):
        own = labels == index
        change = tango(gained, lost, n)
        rows.append(
            ClassChange(
                name=classes[index],
                n=n,
                before=float(was[own].mean()),
                after=float(now[own].mean()),
                change=Range(value=change.value, low=change.low, high=change.high),
                p=p,
                regressed=change.value < 0 and p < ALPHA,
            )
        )
    return tuple(rows)


def _flips(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    images: Sequence[str],
) -> list[Flip]:
    """Return every image whose top-1 class changed, the lost ones first."""
    found = []
    for i in np.flatnonzero(first != second):
        kind: Literal["lost", "gained", "other"] = "other"
        if first[i] == labels[i]:
            kind = "lost"
        elif second[i] == labels[i]:
            kind = "gained"
        found.append(
            Flip(
                image=images[int(i)],
                label=classes[labels[i]],
                before=classes[first[i]],
                after=classes[second[i]],
                kind=kind,
            )
        )
    order = ("lost", "gained", "other")
    return sorted(found, key=lambda flip: order.index(flip.kind))


__all__ = [
    "BOTH",
    "MARGIN",
    "Promise",
    "Side",
    "Speed",
    "Trial",
    "judge",
    "promised_by",
    "run_trial",
    "speed_of",
    "time_both",
]
