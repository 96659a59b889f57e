"""Write and read `report.json`, and draw `report.html` from it."""

from __future__ import annotations

import base64
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flyweight.errors import DataError, MissingExtraError
from flyweight.files import write_json, write_text
from flyweight.report.facts import Facts

_Facts = TypeVar("_Facts", bound=BaseModel)

# id: heading, in the order of the page. `Facts.absent` is keyed by these ids.
SECTIONS = {
    "pick": "The pick and why",
    "pareto": "Accuracy against latency",
    "budget": "The budget",
    "candidates": "Candidates",
    "runtimes": "Runtimes",
    "curves": "Learning curves",
    "confusion": "Confusion matrix",
    "classes": "Class by class",
    "mistakes": "Worst mistakes",
    "calibration": "Calibration",
    "verdicts": "Questions and answers",
    "data": "The data",
    "conditions": "Conditions",
}


@dataclass(frozen=True)
class ReportFiles:
    """Where a report lies."""

    json: Path
    html: Path


def build_report(facts: Facts, out: Path) -> ReportFiles:
    """Write `report.json` and the self-contained `report.html` into the folder `out`.

    Raises:
        MissingExtraError: Jinja2 or Plotly is not installed (report.json is written all the same).
        OutputError: The folder cannot be written.
    """
    files = ReportFiles(Path(out) / "report.json", Path(out) / "report.html")
    write_json(files.json, facts.model_dump(mode="json"))
    write_text(files.html, render(facts))
    return files


def rebuild(path: Path, out: Path) -> ReportFiles:
    """Draw the page of a report.json again, whatever it is of; raises as `load_facts` and `build_report`."""
    from flyweight.measure.table import Sweep
    from flyweight.report.study import StudyFacts, build_study_report
    from flyweight.report.sweep import build_sweep_report
    from flyweight.report.tuning import TuningFacts, build_tuning_report

    file = path / "report.json" if path.is_dir() else path
    head = file.read_bytes()[:200] if file.is_file() else b""
    if b'"kind": "study"' in head:
        return build_study_report(_read(file, StudyFacts), out)
    if b'"kind": "sweep"' in head:
        return build_sweep_report(_read(file, Sweep), out)
    if b'"kind": "tuning"' in head:
        return build_tuning_report(_read(file, TuningFacts), out)
    return build_report(load_facts(path), out)


def load_facts(path: Path) -> Facts:
    """Read a report.json, or the one in the folder `path`.

    Raises:
        DataError: There is none, or it is not a report.
    """
    return _read(path / "report.json" if path.is_dir() else path, Facts)


def _read(file: Path, kind: type[_Facts]) -> _Facts:
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        do = "name the folder that `flyweight fit` or `flyweight reproduce` wrote (--out), or a report.json"
        raise DataError(f"there is no report.json at {str(file)!r}", do=do) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        what = (
            f"{str(file)!r} is not a report of this version: {place}: {first['msg']} ({error.error_count()} problems)"
        )
        raise DataError(what, do="run `flyweight fit` again, or use the Flyweight version that wrote it") from None


def render(facts: Facts) -> str:
    """Return the page as one HTML text: styles, scripts, plots and pictures are inside. Raises MissingExtraError."""
    from flyweight.report import figures

    return draw_page(
        "report.html.j2",
        figures.draw(facts),
        facts=facts,
        sections=SECTIONS,
        why_absent={name: why_absent(facts, name) for name in SECTIONS},
        confused=figures.confused(facts.classes, facts.confusion),
    )


def draw_page(template: str, figures: dict[str, Any], **values: Any) -> str:
    """Return a page of `report/page` filled in, Plotly and all within. Raises MissingExtraError."""
    jinja2, offline = _optional("jinja2"), _optional("plotly.offline")
    from flyweight.report import words

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flyweight.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS, data_uri=_data_uri)
    # Plotly's own script is the one thing that stands unescaped on the page.
    plotly = offline.get_plotlyjs() if figures else ""
    return str(environment.get_template(template).render(figures=figures, plotly=plotly, **values))


def why_absent(facts: Facts, section: str) -> str:
    """Return why a section has nothing to show, in a sentence; "" where it has something."""
    has: dict[str, Any] = {
        "pick": facts.pick,
        "pareto": any(_on_the_plot(candidate) for candidate in facts.candidates),
        "budget": facts.budget,
        "candidates": facts.candidates,
        "runtimes": facts.runtimes,
        "curves": any(curve.rows for curve in facts.curves),
        "confusion": facts.confusion,
        "classes": facts.per_class,
        "mistakes": facts.mistakes,
        "calibration": facts.calibration and facts.calibration.bins,
        "verdicts": facts.verdicts,
        "data": facts.data,
        "conditions": facts.conditions.model_dump(exclude_defaults=True),
    }
    return "" if has[section] else facts.absent.get(section, DEFAULT_ABSENT[section])


DEFAULT_ABSENT = {
    "pick": "No model was picked: nothing was trained to the end within the budget.",
    "pareto": "No candidate has both an accuracy and a latency, so there is nothing to plot.",
    "budget": "No budget was given; the models are compared without limits.",
    "candidates": "No candidates are on record.",
    "runtimes": "The pick was not timed on other runtimes.",
    "curves": "No training history is on record.",
    "confusion": "The model was not scored on labelled images, so mistakes cannot be counted.",
    "classes": "The model was not scored on labelled images, so there is nothing to say class by class.",
    "mistakes": "No mistakes are on record: either there were none, or no labelled images were scored.",
    "calibration": "Confidence was not compared with accuracy, so nothing can be said about trusting it.",
    "verdicts": "No question was asked beyond the pick itself.",
    "data": "The data was not audited in this run.",
    "conditions": "The conditions were not recorded: treat every number here as unverified.",
}


def _on_the_plot(candidate: Any) -> bool:
    return candidate.accuracy.value is not None and candidate.latency_p90_ms.value is not None


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        what = f"the report page needs the package {module.split('.')[0]!r}, which is not installed"
        raise MissingExtraError(what, do="pip install 'flyweight[report]'") from None
