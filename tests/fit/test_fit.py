"""`fit` on real files: from a folder of mixed photos to a bundle that predicts, and on from that bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.api import Bundle, predict, verify
from flyweight.cli import run
from flyweight.data.sources import load_data
from flyweight.errors import DataError
from flyweight.export import export
from flyweight.train.trained import Trained

FAST = ["--minutes", "0.3", "--models", "tiny_cnn_4", "--models", "tiny_cnn_8", "--sizes", "32", "--sizes", "24"]
AS_PICKED = ["--runtimes", "none"]  # test_runtimes.py has the others


def fit(data: str | Path, out: Path, *more: str, budget: str = "latency_p90<50ms,size<300KB") -> int:
    return run(["fit", str(data), "--budget", budget, "--out", str(out), "--json", *FAST, *AS_PICKED, *more])


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "out"
    assert fit(photos, out) == 0
    return out


def test_a_folder_of_mixed_photos_becomes_a_bundle_that_recognises_them(fitted: Path, photos: Path) -> None:
    bundle = Bundle.open(fitted / "bundle")
    found = verify(bundle.path, photos)
    assert found.ok
    assert found.matches_card is True
    assert found.accuracy_low is not None
    assert found.accuracy_low > 1 / 3  # of three kinds; how far training comes depends on the machine
    right = [
        next(predict(bundle, [path])).top[0][0] == path.parent.name for path in sorted(photos.glob("*/1*.*"))[::20]
    ]
    assert np.mean(right) > 0.4


def test_the_report_answers_every_limit_and_keeps_every_candidate(fitted: Path) -> None:
    report = json.loads((fitted / "report.json").read_text())
    questions = [verdict["question"] for verdict in report["verdicts"]]
    assert any("latency_p90" in question for question in questions)
    assert any("size" in question for question in questions)
    assert len(report["candidates"]) == 4
    assert sum(candidate["status"] == "pick" for candidate in report["candidates"]) == 1
    assert (fitted / "report.html").stat().st_size > 1_000_000


def test_the_test_part_was_opened_once(fitted: Path) -> None:
    assert len((fitted / "test-openings.jsonl").read_text().splitlines()) == 1


def test_the_bundle_says_the_accuracy_that_was_measured_on_the_sealed_part(fitted: Path) -> None:
    report = json.loads((fitted / "report.json").read_text())
    manifest = json.loads((fitted / "bundle" / "bundle.json").read_text())
    assert manifest["variants"]["fp32"]["accuracy"]["top1"] == pytest.approx(report["result"]["value"])


@pytest.mark.slow
def test_candidates_over_budget_are_not_trained(photos: Path, tmp_path: Path) -> None:
    assert fit(photos, tmp_path / "out", budget="params<10k") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rejected = [row for row in report["candidates"] if row["status"] == "rejected before training"]
    assert {row["name"].split("@")[0] for row in rejected} == {"tiny_cnn_8"}
    assert all("params" in row["reason"] for row in rejected)
    assert not list((tmp_path / "out" / "work").glob("rung*/tiny_cnn_8*"))


@pytest.mark.slow
def test_a_csv_with_groups_is_fitted_and_keeps_groups_on_one_side(manifest: Path, tmp_path: Path) -> None:
    assert fit(manifest, tmp_path / "out", "--sizes", "24") == 0
    assert json.loads((tmp_path / "out" / "bundle" / "bundle.json").read_text())["split"]["grouped"] is True


def test_a_budget_that_nothing_meets_names_the_limit_that_binds(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(photos, tmp_path / "out", budget="size<2KB,latency_p90<50ms") == 1
    said = capsys.readouterr().err
    assert "size rejects 4 of 4" in said
    assert "allow size<" in said


def test_going_on_with_a_new_class_keeps_the_old_test_images_and_says_what_changed(
    fitted: Path, photos: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(photos, grown)
    (grown / "plain").mkdir()
    rng = np.random.default_rng(1)
    for number in range(120):
        colour = tuple(int(v) for v in rng.integers(0, 255, 3))
        Image.new("RGB", (60, 50), colour).save(grown / "plain" / f"{number}.png")
    out = tmp_path / "out"
    command = [
        "fit",
        str(grown),
        "--budget",
        "size<300KB",
        "--out",
        str(out),
        "--json",
        "--minutes",
        "0.25",
        *AS_PICKED,
    ]
    assert run([*command, "--from", str(fitted / "bundle")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    compared = [verdict for verdict in report["verdicts"] if "continued from" in verdict["question"]]
    assert len(compared) == 4
    assert any("new class" in verdict["answer"] for verdict in compared)
    assert Bundle.open(tmp_path / "out" / "bundle").split == Bundle.open(fitted / "bundle").split


def test_a_fit_that_was_stopped_continues_and_trains_nothing_twice(photos: Path, tmp_path: Path) -> None:
    from flyweight.fit import FitRequest, Fitted
    from flyweight.fit import fit as run_fit
    from flyweight.fit.contest import Progressed
    from flyweight.measure.budget import Budget
    from flyweight.train.run import Finished

    models = ("tiny_cnn_4", "tiny_cnn_8")
    budget = Budget.parse("size<300KB")
    request = FitRequest(str(photos), budget, tmp_path, minutes=0.25, models=models, sizes=(24, 32), runtimes=())
    first = run_fit(request)
    for event in first:
        if isinstance(event, Progressed) and isinstance(event.event, Finished):
            done = event.round.candidate.name
            break
    first.close()
    steps = []
    for event in run_fit(request):
        if isinstance(event, Progressed) and event.round.candidate.name == done and event.round.number == 0:
            steps.append(type(event.event).__name__)
        last = event
    assert isinstance(last, Fitted)
    assert steps == ["Finished"]


def test_other_classes_than_the_run_s_are_refused_at_export(fitted: Path, tmp_path: Path) -> None:
    for kind in ("disc", "cross", "square"):
        (tmp_path / "other" / kind).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (number, 9, 9)).save(tmp_path / "other" / kind / f"{number}.png")
    with pytest.raises(DataError, match="missing \\['stripes'\\], added \\['square'\\]"):
        export(Trained.load(fitted / "bundle" / "training"), load_data(tmp_path / "other"), tmp_path / "bundle")


@pytest.mark.slow
def test_a_network_that_is_too_large_as_float_is_fitted_as_int8(photos: Path, tmp_path: Path) -> None:
    one = ["--minutes", "0.2", "--models", "tiny_cnn_8", "--sizes", "32", "--json"]
    command = ["fit", str(photos), "--budget", "size<25KB", "--out", str(tmp_path / "out"), *one, *AS_PICKED]
    assert run(command) == 0
    bundle = Bundle.open(tmp_path / "out" / "bundle")
    assert bundle.variant().precision == "int8"
    assert bundle.variant().size_bytes < 25_000
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(row["precision"], row["status"]) for row in report["candidates"]] == [
        ("fp32", "rejected before training"), ("int8", "pick"),
    ]  # fmt: skip
    assert verify(bundle.path, photos).ok
    assert run(command) == 0  # what is finished is taken as it stands
