"""A made-up report of any number of classes: for looking at the page and for testing it. It says that it is made up."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from PIL import Image

from flyweight.measure.convergence import convergence
from flyweight.measure.statistics import wilson
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

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
# name, px, params, MACs, p90 ms, accuracy (None: never trained), status, reason
NETS = (
    ("tiny_cnn_16", 28, 11_200, 1_900_000, 0.21, 0.902, "pick", ""),
    (
        "tiny_cnn_24",
        28,
        24_900,
        4_200_000,
        0.34,
        0.909,
        "finalist",
        "not better than the pick beyond chance (p = 0.21)",
    ),
    ("tiny_cnn_8", 28, 3_100, 520_000, 0.11, 0.861, "stopped at rung 1", ""),
    ("tiny_cnn_16", 20, 11_200, 980_000, 0.14, 0.874, "stopped at rung 1", ""),
    ("mobilenetv3_small_050", 28, 570_000, 2_100_000, 0.62, 0.842, "stopped at rung 0", ""),
    ("squeezenet1_1", 28, 730_000, 9_800_000, 0.91, 0.828, "stopped at rung 0", ""),
    ("resnet18", 28, 11_200_000, 37_000_000, 3.9, None, "rejected before training", "size 44.7MB > 500KB"),
    ("efficientnet_b0", 28, 4_020_000, 7_700_000, 2.6, None, "rejected before training", "latency_p90 2.6ms > 2ms"),
)

# runtime, precision, threads, p50 ms, bytes, points, why
WAYS = (
    ("litert", "int8", 1, 0.08, 17_900, -1.4, "it may be worse than the margin of 1 points"),
    ("litert", "fp32", 1, 0.15, 47_800, 0.0, "it computes the same function, and is faster: 0.15 ms against 0.19 ms"),
    ("onnxruntime", "fp32", 1, 0.19, 47_300, None, "the pick's own file"),
    ("onnxruntime", "int8", None, None, None, None, "8 layers of the int8 file would be computed in float"),
)


def sample_facts(classes: Sequence[str] = NAMES, *, seed: int = 0) -> Facts:
    """Return the facts of a report with every section filled."""
    random = np.random.default_rng(seed)
    counts = _counts(len(classes), random)
    right, total = int(np.trace(counts)), int(counts.sum())
    low, high = wilson(right, total)
    return Facts(
        title="A sample report (made-up numbers)",
        pick=PickedModel(
            name="tiny_cnn_16-28",
            why=(
                "It is within every limit of the budget.",
                "tiny_cnn_24-28 got 0.7 points more on validation, which is inside the noise (McNemar p = 0.21), so "
                "the faster of the two ships.",
                "2 of 8 candidates were over the budget and were not trained.",
            ),
        ),
        result=Measured(value=right / total, low=low, high=high),
        result_on=f"test ({total:,} images)",
        budget_text="latency_p90<2ms,size<500KB,memory<64MB",
        device="host",
        budget=_budget(),
        candidates=tuple(_candidate(*net) for net in NETS),
        runtimes=tuple(_way(*way) for way in WAYS),
        curves=tuple(_curve(f"{net[0]}-{net[1]}", net[5], random)
                     for net in NETS if net[5] is not None),
        evaluated_on=f"the test part ({total:,} images)",
        classes=tuple(classes),
        confusion=counts.tolist(),
        per_class=_per_class(classes, counts),
        mistakes=_mistakes(classes, random),
        calibration=_calibration(),
        data=_data(total, len(classes)),
        conditions=_conditions(),
        verdicts=_verdicts(low, high),
        next_commands=("flyweight predict bundle photo.jpg", "flyweight verify bundle --data sample"),
    )  # fmt: skip


def _counts(size: int, random: np.random.Generator) -> np.ndarray:
    logits = random.normal(0, 1.2, (size, size)) + np.eye(size) * (3.5 + math.log(size))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    each = max(2000 // size, 20)
    return np.stack([random.multinomial(each, row) for row in probs])


def _budget() -> tuple[BudgetCheck, ...]:
    return (
        BudgetCheck(metric="latency_p90", limit=2.0, value=0.21, low=0.2, high=0.23, status="met"),
        BudgetCheck(metric="size", limit=500e3, value=47_300, status="met"),
        BudgetCheck(metric="memory", limit=64e6, status="unverified"),
    )


def _candidate(
    name: str, px: int, params: int, macs: int, p90: float, accuracy: float | None, status: str, reason: str
) -> CandidateFacts:
    low, high = (None, None) if accuracy is None else wilson(round(accuracy * 1000), 1000)
    return CandidateFacts(
        name=f"{name}-{px}",
        image_size=px,
        params=params,
        macs=macs,
        size_bytes=4 * params + 2500,
        latency_p50_ms=Measured(value=0.9 * p90, low=0.88 * p90, high=0.93 * p90),
        latency_p90_ms=Measured(value=p90, low=0.96 * p90, high=1.07 * p90),
        threads=1,
        backend="onnxruntime",
        precision="fp32",
        accuracy=Measured(value=accuracy, low=low, high=high),
        accuracy_on="" if accuracy is None else "validation",
        memory_peak_bytes=52_000_000 + 9 * params,
        status=status,
        reason=reason,
    )


def _way(
    backend: str,
    precision: str,
    threads: int | None,
    ms: float | None,
    size: int | None,
    points: float | None,
    because: str,
) -> WayFacts:
    near = Measured() if ms is None else Measured(value=ms, low=0.98 * ms, high=1.03 * ms)
    change = Measured() if points is None else Measured(value=points / 100, low=points / 100 - 0.006, high=0.004)
    ships = precision == "fp32"
    return WayFacts(
        backend=backend,
        precision=precision,
        threads=threads,
        size_bytes=size,
        latency_p50_ms=near,
        change=change,
        ships=ships,
        chosen=ships and backend == "litert",
        because=because,
    )


def _curve(name: str, accuracy: float | None, random: np.random.Generator) -> LearningCurve:
    end, epochs = accuracy or 0.0, 12
    reached = [end - (end - 0.1) * math.exp(-epoch / 2.2) + random.normal(0, 0.004) for epoch in range(1, epochs + 1)]
    rows = tuple(
        EpochRow(
            epoch=epoch + 1,
            train_loss=2.5 * (1.02 - value) + 0.05,
            val_loss=2.4 * (1 - value) + 0.1,
            val_accuracy=value,
            lr=0.5 * (1 + math.cos(math.pi * epoch / epochs)) * 0.1,
            train_seconds=1.4,
        )
        for epoch, value in enumerate(reached)
    )
    course = convergence([{"epoch": row.epoch, "val_accuracy": row.val_accuracy or 0.0} for row in rows])
    return LearningCurve(name=name, rows=rows, course=Course(**asdict(course)))


def _per_class(classes: Sequence[str], counts: np.ndarray) -> tuple[ClassRow, ...]:
    rows = []
    for i, name in enumerate(classes):
        support, called, right = int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i])
        low, high = wilson(right, support)
        precision = right / called if called else None
        f1 = 2 * right / (support + called)
        recall = right / support
        rows.append(ClassRow(name=name, precision=precision, recall=recall, recall_low=low, recall_high=high, f1=f1,
                             support=support))  # fmt: skip
    return tuple(rows)


def _mistakes(classes: Sequence[str], random: np.random.Generator) -> tuple[Mistake, ...]:
    return tuple(
        Mistake(
            png=_picture(random),
            true=classes[i % len(classes)],
            predicted=classes[(i + 1) % len(classes)],
            confidence=0.995 - 0.012 * i,
            key=f"test/{i:05}.png",
        )
        for i in range(12)
    )


def _picture(random: np.random.Generator) -> bytes:
    y, x = np.mgrid[0:28, 0:28] / 28
    a, b, c = random.uniform(2, 9, 3)
    pixels = np.stack([np.sin(a * x + b * y), np.cos(b * x - c * y), np.sin(c * x * y)], axis=-1)
    file = io.BytesIO()
    Image.fromarray((127 + 110 * pixels).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _calibration() -> Calibration:
    confidences = np.linspace(0.25, 0.97, 9)
    bins = [CalibrationBin(confidence=c, accuracy=min(1.0, c - 0.04 * math.sin(6 * c)), n=int(20 + 900 * c**6))
            for c in confidences.tolist()]  # fmt: skip
    return Calibration(bins=tuple(bins), ece=0.018, temperature=1.21)


def _data(test: int, classes: int) -> DataFacts:
    findings = (
        Finding(severity="warning", what="exact copies across splits", count=3, examples=("a/001.png", "b/417.png"),
                meaning="they stay together on one side of the split"),
        Finding(severity="info", what="grayscale images", count=7000, meaning="the network gets one channel"),
    )  # fmt: skip
    return DataFacts(name="sample", fingerprint="0f3a9c1e77d24b58", classes=classes,
                     parts={"train": 4500, "val": 500, "test": test}, findings=findings)  # fmt: skip


def _conditions() -> Conditions:
    return Conditions(
        machine="an imaginary two-core laptop",
        os="Linux 6.12",
        cores=2,
        memory_bytes=8_000_000_000,
        versions={"flyweight": "0.1.0", "onnxruntime": "1.23.0", "torch": "2.14.1"},
        seeds=(0,),
        data_fingerprint="0f3a9c1e77d24b58",
        command='flyweight fit sample --budget "latency_p90<2ms,size<500KB,memory<64MB"',
        date="2026-01-01T12:00:00+00:00",
    )


def _verdicts(low: float, high: float) -> tuple[Verdict, ...]:
    return (
        Verdict(question="How accurate is the shipped file on images it never saw?",
                answer=f"between {low:.1%} and {high:.1%}", low=low, high=high, evidence="test part, opened once"),
        Verdict(question="Is the larger finalist better?", answer="No difference beyond chance", low=-0.004, high=0.018,
                evidence="paired bootstrap of the difference on validation; exact McNemar p = 0.21"),
    )  # fmt: skip
