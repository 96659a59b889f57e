"""The report of a study: several ways of training on several data sets, over seeds, and the questions they answer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from flyweight.files import write_json, write_text
from flyweight.report.build import ReportFiles, draw_page
from flyweight.report.cost import CostFacts
from flyweight.report.facts import Conditions, Count, Fact, Measured, Number
from flyweight.report.isolation import by_question
from flyweight.report.rankings import RankingFacts, by_size
from flyweight.report.stability import ConvergenceFacts, MapFacts, heat_map
from flyweight.report.tradeoff import costs_of, trade_off

Answer = Literal["helps", "hurts", "no difference", "too few seeds", "same recipe"]

ALL = "all data sets"  # a verdict over every data set of the study, each counting the same

SECTIONS = {
    "networks": "The networks",
    "devices": "Fastest on each device",
    "tradeoffs": "Accuracy against cost",
    "pairs": "Every pair",
    "maps": "Where training converges",
    "answers": "Questions and answers",
    "published": "Published and measured",
    "arms": "Every arm",
    "convergence": "Convergence and stability",
    "rankings": "Order by number of images",
    "cost": "Cost",
    "differs": "What differs from the paper",
    "diverged": "Diverged",
    "missing": "Not finished",
    "conditions": "Conditions",
}


class DeployedFacts(Fact):
    """What a network's file costs on the machine of the conditions.

    Attributes:
        latency_p50_ms, latency_p90_ms: Model only, batch 1, with order-statistic 95 % intervals.
        disturbed: True where other programs took a tenth or more of the time.
        memory_bytes: Peak of a fresh process; the increment is over an empty runner.
    """

    backend: str
    threads: Annotated[int, Field(gt=0)]
    latency_p50_ms: Measured
    latency_p90_ms: Measured
    disturbed: bool
    memory_bytes: Count
    memory_increment_bytes: Count


class DeviceFacts(Fact):
    """The files of one data set on one machine, fastest first.

    Attributes:
        order: Arms; those that stand together have medians whose 95 % intervals overlap with the first one's.
    """

    device: str
    backend: str
    threads: Annotated[int, Field(gt=0)]
    dataset: str
    order: tuple[tuple[str, ...], ...]

    @property
    def words(self) -> str:
        """Return the order as a line: `a < b = c < d`."""
        return " < ".join(" = ".join(group) for group in self.order)


class PublishedArmFacts(Fact):
    """What a paper says of an arm, and in which of its tables."""

    accuracy: float
    where: str


class ArmFacts(Fact):
    """One arm on one data set. What is absent from older studies, or from those that compare no networks, is None.

    Attributes:
        group: What it is an arm of, such as the network.
        diverged: Seeds that diverged; accuracies are of the others, and an arm with any is not ranked.
        at_chance: Seeds whose accuracy is not above chance (exact one-sided test at 1 %): they have learned nothing.
        ranked: True where it is compared with the other ranked ones.
        letters: Of the compact letter display: ranked arms of one data set that share one were not found different. ""
            where there are fewer than three seeds to say so from.
        enough: False where the accuracy is below five times chance: not trained enough, and not ranked.
        top5, balanced, ece: Means over seeds.
        macs_by_torch: The same multiply-accumulates by torch's counter.
        size_bytes: Of the file.
        deployed: What the file costs on the default backend.
        elsewhere: The same on the other backends that were installed.
        image_passes: Training images seen, each as often as it was, its own search included; mean over seeds.
        tuning: Its own search in words.
        recalls: Share of each class's images that are found, mean over seeds, in the order of the data set's `classes`.
        pretrained: What its first weights were trained on; "" from scratch.
        seen: True where that includes, or is what was cut into, this very data set.
        accuracy: Mean over seeds on the study's part, with Student's 95 % interval over seeds; with one seed, Wilson's
            over images.
        per_seed: Accuracy of each seed.
        val_accuracy: Mean over seeds.
        params, macs: Counted from the folded graph.
        int8_bytes: Of the file it becomes when it is quantized; None where that is not possible.
        train_macs: Multiply-accumulates of training, forward and backward, its own search included; mean over seeds.
        cost_ratio: `train_macs` over that of the study's reference arm, mean over seeds.
        train_seconds: Of training, one thread, mean over seeds.
        published: What the paper says of it, on what `published_on` of the study says.
    """

    arm: str
    title: str
    group: str = ""
    diverged: Count = 0
    at_chance: Count = 0
    ranked: bool = False
    letters: str = ""
    enough: bool = True
    top5: Number = None
    balanced: Number = None
    ece: Number = None
    recalls: tuple[float, ...] = ()
    macs_by_torch: Count | None = None
    size_bytes: Count | None = None
    image_passes: Number = None
    tuning: str = ""
    pretrained: str = ""
    seen: bool = False
    deployed: DeployedFacts | None = None
    elsewhere: tuple[DeployedFacts, ...] = ()
    accuracy: Measured
    per_seed: tuple[float, ...]
    val_accuracy: float
    params: Count
    macs: Count
    int8_bytes: Count | None = None
    train_macs: float
    cost_ratio: Number = None
    train_seconds: float
    published: PublishedArmFacts | None = None

    @property
    def lost_text(self) -> str:
        """Return how many seeds came to nothing, and how, in words; "" where none did."""
        seeds = self.diverged + len(self.per_seed)
        told = ((self.diverged, "diverged"), (self.at_chance, "at chance"))
        return ", ".join(f"{count} of {seeds} seeds {what}" for count, what in told if count)

    @property
    def seeds_text(self) -> str:
        """Return how many seeds its accuracy is of, in words."""
        return f"{len(self.per_seed)} seed{'s' * (len(self.per_seed) != 1)}"


class PublishedFacts(Fact):
    """What the paper says of a data set, and what the arm as published gives."""

    accuracy: float
    params: Count
    measured: Measured
    measured_params: Count
    reached: bool


class DataSetFacts(Fact):
    """One data set of a study.

    Attributes:
        train_images: That each run learns from, validation left out; None in studies of an older version.
        classes: Names, where they are known.
    """

    name: str
    title: str
    test_images: Count
    train_images: Count | None = None
    classes: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    arms: tuple[ArmFacts, ...]
    published: PublishedFacts | None = None

    def worst_class(self, arm: ArmFacts) -> tuple[str, float] | None:
        """Return the class that an arm finds least often, by name or number, and its recall; None where not known."""
        if not arm.recalls:
            return None
        number = min(range(len(arm.recalls)), key=arm.recalls.__getitem__)
        return self.classes[number] if number < len(self.classes) else f"class {number}", arm.recalls[number]

    @property
    def other_backends(self) -> list[str]:
        """Names of the backends besides the default one that files were timed on."""
        return list(dict.fromkeys(cost.backend for arm in self.arms for cost in arm.elsewhere))


class McNemar(Fact):
    """One seed: images only the first arm gets right, only the second, and the exact two-sided p."""

    seed: int
    only_first: Count
    only_second: Count
    p: float


class StudyVerdict(Fact):
    """One question on one data set.

    Attributes:
        question: In words, and `short` as on a plot. `answer` is about `first` against `second`, from three
            seeds on; "same recipe" where tuning kept the same settings, so that both are one way of training.
        difference: Accuracy of first minus second, over seeds and images, 95 %.
        p, p_holm: Two-sided, of no difference; adjusted for all questions over all data sets, or for all on one, that
            have three seeds or more.
        detectable: Smallest true difference that would be found 4 times in 5 among the same questions, by this answer's
            standard error; None, as the difference, where both are one way of training.
        spread: Standard deviation of the difference from seed to seed: what `flyweight ablate --spread` asks for. None
            over several data sets, with one seed, or from an older version.
        cost_ratio: Training cost of first over second, mean over seeds.
        enough: Both were trained enough to be ranked, where networks are compared.
        seen: One began with weights that saw images of this very data set.
    """

    question: str
    short: str
    dataset: str
    first: str
    second: str
    answer: Answer
    difference: Measured
    p: float
    p_holm: float
    df: float
    detectable: Number = None
    spread: Number = None
    cost_ratio: float
    seeds: int
    mcnemar: tuple[McNemar, ...]
    enough: bool = True
    seen: bool = False

    @property
    def caveat(self) -> str:
        """Return what a reader must know of the answer, in words; "" where nothing."""
        told = ["not trained enough"] * (not self.enough)
        return ", ".join(told + ["pretraining saw this data set"] * self.seen)


class PairFacts(Fact):
    """Two ranked arms on one data set: first minus second, over seeds and images, 95 %; Holm over all its pairs."""

    dataset: str
    first: str
    second: str
    difference: Measured
    p: float
    p_holm: float


class RunningFacts(Fact):
    """A study that is not finished yet: what runs now, and how long the rest may take at the pace so far."""

    done: Count
    total: Count
    running: tuple[tuple[str, Count, Count], ...] = ()
    seconds_left: Number = None


class StudyFacts(Fact):
    """Everything that the page of a study says.

    Attributes:
        pairs: Every pair of ranked arms, where the study compares networks.
        effort: The tuning effort of each arm in words, where any was tuned or networks are compared.
        running: Where it stands, while it runs; the page then loads itself again.
        convergence: How the trainings of each arm went.
        maps: Accuracy and outcome over learning rate × batch size, where the study is such a map.
        rankings: How the order of arms changes, where several subsets of one data set are run.
        devices: The order of the files by latency on each machine that timed them.
        cost: Core-seconds, predicted and measured; None in studies of an older version.
        published_on: What the published numbers of arms were measured on, where that is not what is run here.
        diverged: Why, by trial; those that need one that diverged too.
    """

    kind: Literal["study"] = "study"
    study: str
    title: str
    paper: str
    about: str
    scale: str
    part: Literal["test", "val"] = "test"
    datasets: tuple[DataSetFacts, ...]
    verdicts: tuple[StudyVerdict, ...]
    pairs: tuple[PairFacts, ...] = ()
    effort: str = ""
    running: RunningFacts | None = None
    convergence: tuple[ConvergenceFacts, ...] = ()
    maps: tuple[MapFacts, ...] = ()
    rankings: tuple[RankingFacts, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    cost: CostFacts | None = None
    published_on: str = ""
    differs: tuple[str, ...] = ()
    diverged: dict[str, str] = Field(default_factory=dict)
    missing: tuple[str, ...] = ()
    conditions: Conditions

    @property
    def compares(self) -> bool:
        """True for a comparison of networks."""
        return any(arm.size_bytes is not None for data in self.datasets for arm in data.arms)

    @property
    def has_published(self) -> bool:
        """True where the paper's numbers of a data set, or of single arms, are known."""
        return any(data.published or any(arm.published for arm in data.arms) for data in self.datasets)


def build_study_report(facts: StudyFacts, out: Path) -> ReportFiles:
    """Write `report.json` and the self-contained `report.html` into the folder `out`.

    Raises:
        MissingExtraError: Jinja2 or Plotly is not installed (report.json is written all the same).
        OutputError: The folder cannot be written.
    """
    files = ReportFiles(Path(out) / "report.json", Path(out) / "report.html")
    write_json(files.json, facts.model_dump(mode="json"))
    write_text(files.html, render_study(facts))
    return files


def render_study(facts: StudyFacts) -> str:
    """Return the page as one HTML text. Raises MissingExtraError."""
    optional = {
        "missing": bool(facts.missing),
        "differs": bool(facts.differs),
        **{name: bool(getattr(facts, name)) for name in ("convergence", "maps", "rankings", "diverged")},
        "published": facts.has_published,
        "cost": facts.cost is not None,
    }
    asks = not (facts.compares or facts.maps)
    published = asks and bool(facts.paper)
    optional |= {"answers": bool(facts.verdicts) or asks}
    optional |= {**dict.fromkeys(("networks", "tradeoffs"), facts.compares), "pairs": bool(facts.pairs)}
    optional["devices"] = bool(facts.devices)
    optional |= {"published": facts.has_published or published}
    shown = {name: title for name, title in SECTIONS.items() if optional.get(name, True)}
    absent = {
        "answers": "" if facts.verdicts else "No question has both of its arms finished.",
        "published": "" if facts.has_published else "The arm as published is not finished.",
        "arms": "" if facts.datasets else "Nothing is finished.",
    }
    why = {name: absent.get(name, "") for name in SECTIONS}
    costs = {data.name: tuple(costs_of(data)) for data in facts.datasets}
    return draw_page("study.html.j2", _figures(facts), facts=facts, costs=costs, sections=shown, why_absent=why)


def _figures(facts: StudyFacts) -> dict[str, Any]:
    drawn = {f"plot-arms-{data.name}": _arms(data) for data in facts.datasets if data.arms}
    if facts.compares:
        drawn |= {
            f"plot-{cost}-{data.name}": trade_off(data, cost) for data in facts.datasets for cost in costs_of(data)
        }
    drawn |= {one.id: heat_map(one) for one in facts.maps}
    drawn |= {one.id: by_size(one) for one in facts.rankings}
    if facts.verdicts:
        drawn["plot-answers"] = _answers(facts.verdicts)
        if (isolated := by_question(facts)) is not None:
            drawn["plot-isolation"] = isolated
    return drawn


def _arms(data: DataSetFacts) -> dict[str, Any]:
    """Return the accuracy of each arm: one small dot a seed, a large one for the mean."""
    arms = sorted(data.arms, key=lambda arm: arm.accuracy.value or 0.0)
    names = [html.escape(arm.arm.replace("_", " ")) for arm in arms]
    seeds = {
        "type": "scatter", "mode": "markers", "name": "one seed", "marker": {"color": "muted", "size": 7},
        "x": [100 * value for arm in arms for value in arm.per_seed],
        "y": [name for name, arm in zip(names, arms, strict=True) for _ in arm.per_seed],
        "hovertemplate": "%{x:.2f} %<extra></extra>",
    }  # fmt: skip
    means = {
        "type": "scatter", "mode": "markers", "name": "mean", "marker": {"color": "accent", "size": 12},
        "x": [100 * (arm.accuracy.value or 0.0) for arm in arms], "y": names,
        "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
    }  # fmt: skip
    shapes = []
    if data.published:
        at = 100 * data.published.accuracy
        label = {"text": "published", "textposition": "end", "font": {"color": "warn", "size": 11}}
        line = {"color": "warn", "width": 1.5, "dash": "dash"}
        shapes = [{"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line, "label": label}]
    layout = {"xaxis": {"title": {"text": "accuracy, %"}}, "height": 80 + 34 * len(arms), "shapes": shapes}
    return {"data": [seeds, means], "layout": layout}


def _answers(verdicts: Sequence[StudyVerdict]) -> dict[str, Any]:
    """Return each difference with its interval; what is clear of zero after Holm is in colour."""
    rows = list(reversed(verdicts))
    names = [f"{html.escape(v.short)}, {html.escape('all' if v.dataset == ALL else v.dataset)}" for v in rows]
    data = []
    for answer, colour in (
        ("helps", "accent"),
        ("hurts", "warn"),
        ("no difference", "muted"),
        ("too few seeds", "line"),
    ):
        chosen = [(name, v) for name, v in zip(names, rows, strict=True) if v.answer == answer]
        if not chosen:
            continue
        value, low, high = (
            [100 * (getattr(v.difference, part) or 0.0) for _, v in chosen] for part in ("value", "low", "high")
        )
        data.append({
            "type": "scatter", "mode": "markers", "name": answer, "marker": {"color": colour, "size": 10},
            "x": value, "y": [name for name, _ in chosen], "hovertemplate": "%{y}: %{x:+.2f} points<extra></extra>",
            "error_x": {
                "type": "data", "symmetric": False, "color": colour, "thickness": 2,
                "array": [h - v for h, v in zip(high, value, strict=True)],
                "arrayminus": [v - w for v, w in zip(value, low, strict=True)],
            },
        })  # fmt: skip
    axis = {"categoryorder": "array", "categoryarray": names}
    layout = {"xaxis": {"title": {"text": "difference in accuracy, points"}, "zeroline": True}, "yaxis": axis}
    return {"data": data, "layout": {**layout, "height": 100 + 30 * len(rows)}}


def markdown(facts: StudyFacts) -> str:
    """Return the tables of a study as Markdown: arms by data set, then questions and answers."""
    names = list(dict.fromkeys(arm.arm for data in facts.datasets for arm in data.arms))
    lines = ["| arm | " + " | ".join(data.title for data in facts.datasets) + " |"]
    lines.append("| --- |" + " --- |" * len(facts.datasets))
    for name in names:
        cells = [next((_cell(arm, data) for arm in data.arms if arm.arm == name), "–") for data in facts.datasets]
        title = next(arm.title for data in facts.datasets for arm in data.arms if arm.arm == name)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    published = [f"{100 * data.published.accuracy:g} %" if data.published else "–" for data in facts.datasets]
    if any(data.published for data in facts.datasets):
        lines.append("| *published* | " + " | ".join(published) + " |")
    if not facts.verdicts:
        return "\n".join(lines)
    places = [(ALL, ALL)] * any(verdict.dataset == ALL for verdict in facts.verdicts)
    places += [(data.name, data.title) for data in facts.datasets]
    lines += ["", "| question | " + " | ".join(title for _, title in places) + " |"]
    lines.append("| --- |" + " --- |" * len(places))
    for question in dict.fromkeys(verdict.question for verdict in facts.verdicts):
        found = {verdict.dataset: verdict for verdict in facts.verdicts if verdict.question == question}
        cells = [_difference(found[name]) if name in found else "–" for name, _ in places]
        lines.append(f"| {question} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(arm: ArmFacts, data: DataSetFacts) -> str:
    value, low, high = arm.accuracy.value, arm.accuracy.low, arm.accuracy.high
    spread = "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
    size = "" if arm.int8_bytes is None else f", {arm.int8_bytes / 1000:.1f} kB"
    lost = f", {arm.lost_text}" if arm.lost_text else ""
    seeds = "" if len(arm.per_seed) + arm.diverged == len(data.seeds) else f", {arm.seeds_text}"
    weak = "" if arm.enough else ", not trained enough"
    said = f"; published {100 * arm.published.accuracy:.2f} %" if arm.published else ""
    return f"{100 * (value or 0.0):.2f} %{spread}, {arm.params:,}{size}{seeds}{lost}{weak}{said}"


def _difference(verdict: StudyVerdict) -> str:
    if verdict.answer == "same recipe":
        return "**same recipe** on both sides"
    low, value, high = (100 * (getattr(verdict.difference, part) or 0.0) for part in ("low", "value", "high"))
    caveat = f" ({verdict.caveat})" if verdict.caveat else ""
    return f"**{verdict.answer}**: {value:+.2f} [{low:+.2f}, {high:+.2f}], p {verdict.p_holm:.2g}{caveat}"
