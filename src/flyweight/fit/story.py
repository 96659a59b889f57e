"""Put everything `fit` found into the facts of the report."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flyweight.data.audit import Audit
from flyweight.data.dataset import Dataset
from flyweight.data.split import Split
from flyweight.fit.contest import Outcome
from flyweight.fit.pick import Finalist, Pick, Way
from flyweight.fit.weigh import Weighed
from flyweight.measure.accuracy import METRICS, Accuracy
from flyweight.measure.budget import MEASURED, show
from flyweight.measure.convergence import convergence
from flyweight.measure.device import HOST, load_device
from flyweight.report.facts import (
    BudgetCheck,
    Calibration,
    CalibrationBin,
    CandidateFacts,
    ClassRow,
    Conditions,
    Course,
    DataFacts,
    EpochRow,
    Facts,
    Finding,
    LearningCurve,
    Measured,
    Mistake,
    PickedModel,
    Verdict,
    WayFacts,
)
from flyweight.runtime.backends import DEFAULT
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.calibration import softmax
from flyweight.runtime.environment import environment
from flyweight.runtime.preprocess import load

if TYPE_CHECKING:
    from flyweight.fit.flow import FitRequest

MISTAKES = 24
QUANTILES = {"latency_p50": "p50", "latency_p90": "p90", "latency_p99": "p99"}


def tell(
    request: FitRequest,
    dataset: Dataset,
    parts: Split,
    findings: Audit,
    weighed: Sequence[Weighed],
    outcomes: Sequence[Outcome],
    pick: Pick,
    bundle: Bundle,
    test: Accuracy,
    logits: NDArray[np.float32],
) -> Facts:
    """Return the facts of the report.

    Args:
        test: Accuracy of the shipped file on the test part.
        logits: (N, K) of the test images, in the order of `parts.test`.
    """
    winner, metric = pick.winner, request.budget.maximize
    where = f"test ({test.n:,} images)"
    conditions = environment()
    value = METRICS[metric](test)
    interval = {"low": test.low, "high": test.high} if metric == "accuracy" else {}
    return Facts(
        title=f"{dataset.name}: {winner.name}",
        pick=PickedModel(name=winner.name, why=pick.why),
        result=Measured(value=value, **interval),
        result_on=where,
        metric=metric,
        budget_text=request.budget.text,
        device=request.budget.device,
        budget=_budget(winner),
        candidates=tuple(_candidate(entry, outcomes, pick, request.budget.device) for entry in weighed),
        runtimes=tuple(_way(way, pick) for way in pick.ways),
        curves=tuple(_curve(outcome) for outcome in outcomes if outcome.trained is not None),
        evaluated_on=where,
        classes=bundle.classes,
        confusion=test.confusion,
        per_class=tuple(_class_row(row) for row in test.per_class),
        mistakes=_mistakes(dataset, parts, bundle, logits),
        calibration=_calibration(test, bundle),
        data=_data(dataset, parts, findings),
        conditions=Conditions(
            machine=f"{conditions['cpu']} ({conditions['machine']})",
            os=conditions["os"],
            cores=conditions["cores"],
            memory_bytes=conditions["memory_bytes"],
            versions={**conditions["versions"], "python": conditions["python"]},
            seeds=(request.seed,),
            data_fingerprint=dataset.fingerprint(),
            command=request.command or conditions["command"],
            date=conditions["date"],
            details=_timing(request, pick),
        ),
        verdicts=_verdicts(request, pick, test),
        next_commands=(
            f"flyweight predict {bundle.path} PHOTO.jpg",
            f"flyweight verify {bundle.path} --data {request.data}",
            _measure_command(request, bundle, pick.threads or request.threads),
        ),
    )


def _measure_command(request: FitRequest, bundle: Bundle, threads: int) -> str:
    device = request.budget.device
    if device == HOST:
        return f"flyweight measure {bundle.path} --threads {threads}"
    return f"flyweight kit {bundle.path} --name {device} --threads {threads} --out kit.zip"


def _timing(request: FitRequest, pick: Pick) -> dict[str, str]:
    """Return how latencies came about, and on which device under which conditions."""
    how = f"batch 1, threads {pick.threads or request.threads}, model only, untrimmed"
    if request.budget.device == HOST:
        return {"latency": f"{how}, finalists interleaved"}
    device = load_device(request.budget.device)
    if not pick.winner.latency:
        return {"latency": f"not measured: {device.name} did not time these networks"}
    conditions = device.results[-1].conditions
    state = conditions.before.model_dump(exclude_none=True) | {"throttled at the end": conditions.after.throttled}
    told = ", ".join(f"{key} {_words(value)}" for key, value in state.items() if value not in (None, ()))
    runtimes = ", ".join(f"{name} {version}" for name, version in device.runtimes.items())
    return {
        "latency": f"{how}, taken by {device.name} of the untrained twins (the same graphs); this machine's clock was "
        "not asked",
        device.name: f"{device.description}; {runtimes}; {conditions.date}" + (f"; {told}" if told else ""),
    }


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _budget(winner: Finalist) -> tuple[BudgetCheck, ...]:
    rows = []
    for check in winner.checks:
        low, high = _interval(winner.latency, check.metric)
        rows.append(
            BudgetCheck(
                metric=check.metric, limit=check.limit, value=check.value, low=low, high=high, status=check.status
            )
        )
    return tuple(rows)


def _interval(latency: dict[str, Any], metric: str) -> tuple[float | None, float | None]:
    found = latency.get(QUANTILES.get(metric, ""), {})
    return found.get("low_ms"), found.get("high_ms")


def _candidate(entry: Weighed, outcomes: Sequence[Outcome], pick: Pick, device: str) -> CandidateFacts:
    name = entry.candidate.name
    outcome = next((found for found in outcomes if found.weighed.candidate == entry.candidate), None)
    finalist = next((found for found in pick.finalists if found.name == name), None)
    values, latency = (finalist.values, finalist.latency) if finalist else (entry.values, entry.latency)
    status, reason = _status(entry, outcome, finalist, pick)
    if outcome is None and device != HOST and not entry.verified:
        status, reason = "rejected before training", f"not timed by {device}"
    accuracy = Measured(value=outcome.score) if outcome else Measured()
    if finalist:
        found = finalist.validation
        accuracy = Measured(value=found.top1, low=found.low, high=found.high)
    shipped = finalist.bundle.variant() if finalist else None
    return CandidateFacts(
        name=name,
        image_size=entry.candidate.image_size,
        status=status,
        reason=reason,
        params=int(values["params"] or 0),
        macs=int(values["macs"] or 0),
        size_bytes=int(values["size"] or 0),
        latency_p50_ms=_measured(latency, "p50"),
        latency_p90_ms=_measured(latency, "p90"),
        threads=(finalist is pick.winner and pick.threads) or entry.threads,
        backend=shipped.backend if shipped else DEFAULT,
        precision=shipped.precision if shipped else entry.candidate.precision,
        accuracy=accuracy,
        accuracy_on="validation" if accuracy.value is not None else "",
        memory_peak_bytes=int(values.get("memory") or 0) or None,
    )


def _way(way: Way, pick: Pick) -> WayFacts:
    shipped = pick.winner.bundle.variant().name, pick.threads
    value, low, high = way.change or (None, None, None)
    return WayFacts(
        backend=way.backend,
        precision=way.precision,
        threads=way.threads,
        size_bytes=way.size_bytes,
        latency_p50_ms=Measured(value=way.p50_ms, low=way.p50_low_ms, high=way.p50_high_ms),
        change=Measured(value=value, low=low, high=high),
        ships=way.ships,
        chosen=(way.variant, way.threads) == shipped,
        because=way.because,
    )


def _status(entry: Weighed, outcome: Outcome | None, finalist: Finalist | None, pick: Pick) -> tuple[str, str]:
    if not entry.within:
        broken = [check for check in entry.checks if check.status == "violated"]
        said = ", ".join(f"{c.metric} {c.shown_value} over {c.shown_limit}" for c in broken)
        return "rejected before training", said
    if finalist is pick.winner:
        return "pick", ""
    if outcome is None:
        return "too slow to train in the time", ""
    if outcome.status.startswith("training failed"):
        return "training failed", outcome.status.partition(": ")[2]
    return outcome.status, ""


def _measured(latency: dict[str, Any], quantile: str) -> Measured:
    found = latency.get(quantile)
    if found is None:
        return Measured()
    return Measured(value=found["ms"], low=found["low_ms"], high=found["high_ms"])


def _curve(outcome: Outcome) -> LearningCurve:
    assert outcome.trained is not None
    known = EpochRow.model_fields
    rows = [EpochRow(**{k: v for k, v in row.items() if k in known}) for row in outcome.trained.history]
    went = convergence(outcome.trained.history, outcome.trained.metrics)
    course = Course(**dataclasses.asdict(went))
    return LearningCurve(name=outcome.weighed.candidate.name, rows=tuple(rows), course=course)


def _class_row(row: Any) -> ClassRow:
    return ClassRow(
        name=row.name,
        precision=row.precision,
        recall=row.recall,
        recall_low=row.recall_low,
        recall_high=row.recall_high,
        f1=row.f1,
        support=row.n,
    )


def _mistakes(dataset: Dataset, parts: Split, bundle: Bundle, logits: NDArray[np.float32]) -> tuple[Mistake, ...]:
    """Return the wrong answers given with most confidence."""
    probs = softmax(logits, bundle.temperature)
    labels, called = dataset.labels[parts.test], probs.argmax(axis=1)
    wrong = np.flatnonzero(called != labels)
    worst = wrong[np.argsort(-probs[wrong, called[wrong]], kind="stable")][:MISTAKES]
    return tuple(
        Mistake(
            png=_png(dataset, int(parts.test[place]), bundle),
            true=bundle.classes[int(labels[place])],
            predicted=bundle.classes[int(called[place])],
            confidence=float(probs[place, called[place]]),
            key=dataset.images.key(int(parts.test[place])),
        )
        for place in worst
    )


def _png(dataset: Dataset, index: int, bundle: Bundle) -> bytes:
    pixels = load(dataset.images.read(index), bundle.preprocess)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _calibration(test: Accuracy, bundle: Bundle) -> Calibration:
    bins = tuple(CalibrationBin(confidence=c, accuracy=a, n=n) for c, a, n in test.bins)
    return Calibration(bins=bins, ece=test.ece, temperature=bundle.temperature)


def _data(dataset: Dataset, parts: Split, findings: Audit) -> DataFacts:
    return DataFacts(
        name=dataset.name,
        fingerprint=dataset.fingerprint(),
        classes=len(dataset.classes),
        parts={"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)},
        findings=tuple(
            Finding(severity=f.severity, what=f.what, count=f.count, examples=f.examples, meaning=f.meaning)
            for f in findings.findings
        ),
    )


def _verdicts(request: FitRequest, pick: Pick, test: Accuracy) -> tuple[Verdict, ...]:
    winner = pick.winner
    rows = []
    for check in winner.checks:
        low, high = _interval(winner.latency, check.metric)
        crosses = high is not None and high > check.limit
        answer = {"met": "yes", "violated": "no", "unverified": "unverified: nothing was measured on that device"}[
            check.status
        ]
        rows.append(
            Verdict(
                question=f"Is {check.metric} below {check.shown_limit}?",
                answer=answer + ", but the interval reaches over the limit" * (crosses and check.status == "met"),
                low=low,
                high=high,
                evidence=f"{check.shown_value}, {_evidence(check.metric, request.budget.device)}",
            )
        )
    rows.append(
        Verdict(
            question="How accurate is the shipped file on images that nothing was chosen by?",
            answer=f"{100 * test.top1:.2f} % of {test.n:,}",
            low=test.low,
            high=test.high,
            evidence="test part, opened once after the pick; Wilson 95 %",
        )
    )
    for name, p in pick.p_values.items():
        best = pick.finalists[0].name
        rows.append(
            Verdict(
                question=f"Is {best} more accurate than {name}?",
                answer="yes" if p <= 0.05 else "no difference",
                evidence=f"exact McNemar on the validation images, p = {p:.3g}",
            )
        )
    return tuple(rows)


def _evidence(metric: str, device: str) -> str:
    return f"the untrained twin on {device}" if metric in MEASURED and device != HOST else "the shipped file"


def summary(pick: Pick, test: Accuracy, threads: int, device: str = HOST) -> list[str]:
    """Return what a person wants to know at the end, a line each."""
    values, shipped = pick.winner.values, pick.winner.bundle.variant()
    threads = pick.threads or threads
    p50, p90, size = (_shown(name, values[name]) for name in ("latency_p50", "latency_p90", "size"))
    return [
        f"pick      {pick.winner.name}",
        f"runs as   {shipped.precision} on {shipped.backend}",
        f"accuracy  {100 * test.top1:.2f} % of {test.n:,} test images "
        f"(95 %: {100 * test.low:.2f} to {100 * test.high:.2f} %)",
        f"latency   p50 {p50}, p90 {p90} ({threads} thread{'s' * (threads > 1)}, batch 1, model only"
        + (")" if device == HOST else f"; {device}, of the untrained twin)"),
        f"size      {size}, {int(values['params'] or 0):,} parameters",
    ]


def _shown(metric: str, value: float | None) -> str:
    return "not measured" if value is None else show(metric, value)
