"""Facts in, one self-contained page and its JSON out. Imports no torch; Jinja2 and Plotly only when a page is drawn.

from flyweight.report import Facts, build_report
build_report(Facts(title="flowers"), Path("out")).html
"""

from flyweight.report.build import ReportFiles, build_report, load_facts
from flyweight.report.facts import (
    BudgetCheck,
    Calibration,
    CalibrationBin,
    CandidateFacts,
    ClassRow,
    Conditions,
    DataFacts,
    EpochRow,
    Facts,
    Finding,
    LearningCurve,
    Measured,
    Mistake,
    PickedModel,
    Verdict,
)

__all__ = [
    "BudgetCheck",
    "Calibration",
    "CalibrationBin",
    "CandidateFacts",
    "ClassRow",
    "Conditions",
    "DataFacts",
    "EpochRow",
    "Facts",
    "Finding",
    "LearningCurve",
    "Measured",
    "Mistake",
    "PickedModel",
    "ReportFiles",
    "Verdict",
    "build_report",
    "load_facts",
]
