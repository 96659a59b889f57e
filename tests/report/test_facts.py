import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from flyweight.errors import DataError, OutputError
from flyweight.report import BudgetCheck, CandidateFacts, EpochRow, Facts, build_report, load_facts
from flyweight.report.build import SECTIONS, why_absent
from flyweight.report.sample import sample_facts


def test_facts_survive_the_way_through_report_json(tmp_path: Path) -> None:
    facts = sample_facts()
    build_report(facts, tmp_path)
    assert load_facts(tmp_path) == facts


def test_report_json_obeys_the_published_schema(tmp_path: Path) -> None:
    written = json.loads(build_report(sample_facts(), tmp_path).json.read_text())
    jsonschema.validate(written, Facts.model_json_schema(mode="serialization"))
    assert written["verdicts"][0]["low"] < written["verdicts"][0]["high"]


def test_the_same_facts_give_the_same_page(tmp_path: Path) -> None:
    first = build_report(sample_facts(), tmp_path / "a").html.read_bytes()
    again = build_report(load_facts(tmp_path / "a"), tmp_path / "b").html.read_bytes()
    assert first == again


def test_candidates_stand_in_the_order_of_how_far_they_came_then_of_accuracy() -> None:
    rows = [
        ("slow", "too slow to train", None),
        ("b", "stopped at rung 0", 0.5),
        ("a", "stopped at rung 0", 0.7),
        ("late", "stopped at rung 2", 0.6),
    ]
    rows += [("second", "finalist", 0.8), ("first", "pick", 0.79)]
    candidates = [
        CandidateFacts(name=name, image_size=28, status=status, accuracy={"value": value})
        for name, status, value in rows
    ]
    standings = Facts(title="x", candidates=candidates).standings
    assert [candidate.name for candidate in standings] == ["first", "second", "late", "a", "b", "slow"]


def test_a_name_that_is_not_a_fact_is_refused() -> None:
    with pytest.raises(ValidationError, match="acuracy"):
        Facts(title="x", acuracy=1)


def test_a_confusion_matrix_that_does_not_fit_the_classes_is_refused() -> None:
    with pytest.raises(ValidationError, match="2 x 2"):
        Facts(title="x", classes=("a", "b"), confusion=((1, 0, 0), (0, 1, 0)))


def test_a_status_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="begins with none of"):
        CandidateFacts(name="n", image_size=8, status="excellent")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), np.float64("-inf")])
def test_a_loss_that_is_not_finite_counts_as_not_known(value: float) -> None:
    assert EpochRow(epoch=1, train_loss=value).train_loss is None


def test_a_limit_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        BudgetCheck(metric="size", limit=float("inf"), status="met")


@pytest.mark.parametrize(
    ("content", "part"), [(None, "no report.json"), ("{", "not a report"), ('{"title": "x", "colour": 1}', "colour")]
)
def test_what_is_no_report_is_refused_with_its_path(tmp_path: Path, content: str | None, part: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=part) as caught:
        load_facts(tmp_path)
    assert str(tmp_path) in caught.value.what


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        build_report(Facts(title="x"), tmp_path / "file")


@pytest.mark.parametrize("section", list(SECTIONS))
def test_a_report_of_nothing_says_why_each_section_is_empty(section: str) -> None:
    assert why_absent(Facts(title="x"), section).endswith(".")
    assert why_absent(Facts(title="x", absent={section: "Because."}), section) == "Because."
    assert why_absent(sample_facts(), section) == ""
