"""What a report says, as plain values: `report.json` is these values, and the page is drawn from them alone.

Shares are in 0..1, latencies in ms, sizes and memory in bytes. None or an empty tuple means "not known"; the page then
says why in `absent`. Numbers that are not finite are taken as not known.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, SupportsFloat

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

STATUSES = (
    "pick", "finalist", "stopped at rung", "rejected before training", "too slow to train", "training failed"
)  # fmt: skip


def _finite(value: Any) -> Any:
    # SupportsFloat: a NaN of NumPy's float32 is no Python float, but pydantic would take it for one.
    return None if isinstance(value, SupportsFloat) and not math.isfinite(float(value)) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Count = Annotated[int, Field(ge=0)]


class Fact(BaseModel):
    """A frozen value that refuses unknown names, and numbers that JSON cannot hold where one must be known."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )


class Measured(Fact):
    """A value and the interval it lies in (95 % where nothing else is said)."""

    value: Number = None
    low: Number = None
    high: Number = None


class PickedModel(Fact):
    """The model that ships and, in sentences, why it and no other."""

    name: str
    why: tuple[str, ...] = ()


class BudgetCheck(Fact):
    """One limit and what was found; `metric` is a name of a budget, its unit ms, bytes or a count."""

    metric: str
    limit: float
    value: Number = None
    low: Number = None
    high: Number = None
    status: Literal["met", "violated", "unverified"]


class CandidateFacts(Fact):
    """One network at one image size, and how far it came.

    Attributes:
        params, macs: Counted. size_bytes and below: measured.
        accuracy: On the split that `accuracy_on` names.
        status: Begins with one of `STATUSES`.
        reason: The limit that is broken, or why it stopped.
    """

    name: str
    image_size: Annotated[int, Field(gt=0)]
    status: str
    reason: str = ""
    params: Count | None = None
    macs: Count | None = None
    size_bytes: Count | None = None
    latency_p50_ms: Measured = Measured()
    latency_p90_ms: Measured = Measured()
    threads: Annotated[int, Field(gt=0)] | None = None
    backend: str = ""
    precision: str = ""
    accuracy: Measured = Measured()
    accuracy_on: str = ""
    memory_peak_bytes: Count | None = None

    @property
    def kind(self) -> str:
        """Return the first of `STATUSES` that the status begins with."""
        return next(known for known in STATUSES if self.status.startswith(known))

    @model_validator(mode="after")
    def _known_status(self) -> CandidateFacts:
        if not self.status.startswith(STATUSES):
            raise ValueError(f"status {self.status!r} begins with none of {', '.join(STATUSES)}")
        return self


class WayFacts(Fact):
    """One way to run the pick: a file, the runtime that runs it, and with how many threads.

    Attributes:
        change: Of the accuracy on validation against the file that was picked; unknown where it was not on trial.
        ships: Whether it may: as accurate, and not slower; `chosen`: it is the one that ships.
        because: Why, or why not. What could not be written has no time and no threads.
    """

    backend: str
    precision: str
    threads: Annotated[int, Field(gt=0)] | None = None
    size_bytes: Count | None = None
    latency_p50_ms: Measured = Measured()
    change: Measured = Measured()
    ships: bool
    chosen: bool = False
    because: str


class EpochRow(Fact):
    """One epoch of one training."""

    epoch: float
    train_loss: Number = None
    val_loss: Number = None
    val_accuracy: Number = None
    lr: Number = None
    train_seconds: Number = None


class Course(Fact):
    """How a training went, as `measure.convergence.Convergence` says it; accuracies of the validation images."""

    best: Number = None
    best_epoch: Count
    epochs_to_90: Count
    epochs_to_99: Count
    tail_deviation: Number = None
    largest_drop: Number = None
    gap: Number = None
    grad_norm_max: Number = None


class LearningCurve(Fact):
    """The history of one candidate's last training, and its course as numbers."""

    name: str
    rows: tuple[EpochRow, ...]
    course: Course | None = None


class ClassRow(Fact):
    """One class: precision, recall with its Wilson interval, F1, and how many images it has."""

    name: str
    precision: Number = None
    recall: Number = None
    recall_low: Number = None
    recall_high: Number = None
    f1: Number = None
    support: Count


class Mistake(Fact):
    """An image that is called something else with much confidence. In JSON the PNG is base64."""

    png: bytes
    true: str
    predicted: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    key: str = ""


class CalibrationBin(Fact):
    """Images whose confidence falls into one bin."""

    confidence: Annotated[float, Field(ge=0, le=1)]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    n: Count


class Calibration(Fact):
    """How far confidence may be believed; `ece` after dividing logits by `temperature`."""

    bins: tuple[CalibrationBin, ...]
    ece: Number = None
    temperature: Number = None


class Finding(Fact):
    """One thing the audit found, with what it means for training."""

    severity: str
    what: str
    count: Count = 0
    examples: tuple[str, ...] = ()
    meaning: str = ""


class DataFacts(Fact):
    """The data in numbers and what the audit says about it."""

    name: str
    fingerprint: str = ""
    classes: Count = 0
    parts: dict[str, int] = {}
    findings: tuple[Finding, ...] = ()


class Conditions(Fact):
    """What every number depends on; `details` holds whatever else should be on record."""

    machine: str = ""
    os: str = ""
    cores: Count | None = None
    memory_bytes: Count | None = None
    versions: dict[str, str] = {}
    seeds: tuple[int, ...] = ()
    data_fingerprint: str = ""
    command: str = ""
    date: str = ""
    details: dict[str, str] = {}


class Verdict(Fact):
    """A question, its answer in words, the interval behind it and where the evidence lies."""

    question: str
    answer: str
    low: Number = None
    high: Number = None
    evidence: str = ""


class Facts(Fact):
    """Everything a report says.

    Attributes:
        budget_text: As the user wrote it.
        metric: What the budget maximises.
        device: The device the limits belong to.
        runtimes: Ways to run the pick, the fastest first.
        result: Of the shipped file, on `result_on`.
        evaluated_on: What confusion, per_class, mistakes and calibration come from, e.g. "test (10,000 images)".
        confusion: confusion[i][j] images of classes[i] were called classes[j].
        absent: By section (`build.SECTIONS`): why it has nothing to show.
    """

    format_version: Literal[1] = 1
    title: str
    pick: PickedModel | None = None
    result: Measured = Measured()
    result_on: str = ""
    metric: str = "accuracy"
    budget_text: str = ""
    device: str = ""
    budget: tuple[BudgetCheck, ...] = ()
    candidates: tuple[CandidateFacts, ...] = ()
    runtimes: tuple[WayFacts, ...] = ()
    curves: tuple[LearningCurve, ...] = ()
    evaluated_on: str = ""
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[Count, ...], ...] = ()
    per_class: tuple[ClassRow, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    calibration: Calibration | None = None
    data: DataFacts | None = None
    conditions: Conditions = Conditions()
    verdicts: tuple[Verdict, ...] = ()
    next_commands: tuple[str, ...] = ()
    absent: dict[str, str] = {}

    @property
    def standings(self) -> list[CandidateFacts]:
        """Return the candidates: those that came furthest first, among equals the most accurate."""

        def order(one: CandidateFacts) -> tuple[int, int, float]:
            rung = int("".join(filter(str.isdigit, one.status)) or 0) if one.kind == "stopped at rung" else 0
            return STATUSES.index(one.kind), -rung, -(one.accuracy.value or 0.0)

        return sorted(self.candidates, key=order)

    @model_validator(mode="after")
    def _square(self) -> Facts:
        size = len(self.classes)
        if self.confusion and (len(self.confusion) != size or any(len(row) != size for row in self.confusion)):
            raise ValueError(f"confusion must be {size} x {size}, one row and column for each of `classes`")
        return self
