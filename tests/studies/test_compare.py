"""`compare` trains networks alike, times their files, and says which differ."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from tests.studies.small import made_up

from flyweight.cli import run
from flyweight.errors import ModelError, RecipeError
from flyweight.report.study import ArmFacts, StudyFacts
from flyweight.report.tables import latex_table
from flyweight.report.tradeoff import fronts
from flyweight.studies.analyse import analyse, enough
from flyweight.studies.compared import comparison
from flyweight.studies.schedule import TrialDone, run_trials
from flyweight.studies.study import Study, trials
from flyweight.studies.trial import RESULT, Place
from flyweight.train.recipe import Recipe, load_recipe

COMMAND = [
    "compare", "sample", "--models", "tiny_cnn_8,tiny_cnn_16", "--models", "tiny_cnn_4", "--seeds", "2", "--tune", "2",
    "--tune-epochs", "1", "--set", "epochs=4", "--jobs", "1", "--per-class", "300", "--json",
]  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    assert run([*COMMAND, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def facts(compared: Path) -> StudyFacts:
    return StudyFacts.model_validate_json((compared / "report.json").read_text())


def arm(facts: StudyFacts, name: str) -> ArmFacts:
    return next(arm for arm in facts.datasets[0].arms if arm.arm == name)


def test_every_network_has_every_metric_with_its_conditions(facts: StudyFacts) -> None:
    for name in ("tiny_cnn_4", "tiny_cnn_8", "tiny_cnn_16"):
        found = arm(facts, name)
        assert len(found.per_seed) == 2
        assert found.top5 is not None
        assert found.balanced is not None
        assert found.ece is not None
        assert found.macs_by_torch == found.macs
        assert found.size_bytes
        assert found.deployed is not None
        assert (found.deployed.backend, found.deployed.threads) == ("onnxruntime", 1)
        p50 = found.deployed.latency_p50_ms
        assert None not in (p50.low, p50.value, p50.high)
        assert found.deployed.memory_bytes > 10_000_000
        assert [cost.backend for cost in found.elsewhere] == ["openvino"]
        assert (found.elsewhere[0].latency_p50_ms.value or 0.0) > 0
    assert arm(facts, "tiny_cnn_16").accuracy.value > 0.5  # type: ignore[operator]


def test_tuning_effort_is_equal_and_printed(facts: StudyFacts) -> None:
    assert facts.effort.startswith("Tuning effort on sample, trials × image passes, equal:")
    assert "tiny_cnn_8 2 × " in facts.effort
    assert len({arm.image_passes for arm in facts.datasets[0].arms}) == 1


def test_two_seeds_are_too_few_for_letters(facts: StudyFacts, compared: Path) -> None:
    assert facts.pairs == ()
    assert {arm.letters for arm in facts.datasets[0].arms} == {""}
    assert "Fewer than three seeds" in (compared / "report.html").read_text()


def test_letters_agree_with_the_pairs(tmp_path: Path) -> None:
    scores = {"tiny_cnn_8": [0.9, 0.9, 0.91], "tiny_cnn_6": [0.89, 0.9, 0.9], "tiny_cnn_4": [0.7, 0.71, 0.7]}
    study, place = made_up(tmp_path, scores)
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    ranked = {arm.arm: arm.letters for arm in facts.datasets[0].arms if arm.ranked}
    assert len(facts.pairs) == 3
    for pair in facts.pairs:
        share = bool(set(ranked[pair.first]) & set(ranked[pair.second]))
        assert share == (pair.p_holm >= 0.05)
    assert ranked == {"tiny_cnn_8": "a", "tiny_cnn_6": "a", "tiny_cnn_4": "b"}


@pytest.mark.parametrize(("classes", "least"), [(2, 0.75), (5, 0.6), (10, 0.5), (200, 0.025)])
def test_with_few_classes_enough_is_halfway_from_chance(classes: int, least: float) -> None:
    assert enough(classes) == pytest.approx(least)


def test_the_tables_hold_the_same_numbers(compared: Path, facts: StudyFacts) -> None:
    rows = list(csv.DictReader((compared / "table.csv").read_text().splitlines()))
    assert {row["arm"] for row in rows} == {arm.arm for arm in facts.datasets[0].arms}
    for row in rows:
        assert float(row["accuracy"]) == arm(facts, row["arm"]).accuracy.value
        assert int(row["flops"]) == 2 * arm(facts, row["arm"]).macs
    latex = (compared / "table.tex").read_text()
    assert latex == latex_table(facts)
    assert r"tiny\_cnn\_16" in latex


def test_the_same_command_repeats_nothing(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (compared / "trials").rglob(RESULT)}
    assert len(before) == 6
    deployed = (compared / "deployed.json").stat().st_mtime_ns
    assert run([*COMMAND, "--out", str(compared)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (compared / "trials").rglob(RESULT)} == before
    assert (compared / "deployed.json").stat().st_mtime_ns == deployed


def test_the_test_part_was_opened_once_a_trial(compared: Path) -> None:
    assert len((compared / "test-openings.jsonl").read_text().splitlines()) == 6


def test_validation_results_are_not_taken_for_test_results(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*COMMAND, "--part", "val", "--out", str(compared)]) == 1
    assert "holds a study with another part" in capsys.readouterr().err


def test_other_images_are_not_paired_with_those_of_finished_trials(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(compared, tmp_path / "out")
    trial = tmp_path / "out" / "trials" / "sample" / "tiny_cnn_8"
    shutil.rmtree(trial / "seed1")
    result = json.loads((trial / "seed0" / RESULT).read_text())
    (trial / "seed0" / RESULT).write_text(json.dumps({**result, "fingerprint": "other"}))
    assert run([*COMMAND, "--out", str(tmp_path / "out")]) == 1
    assert "other images or labels" in capsys.readouterr().err


def test_another_recipe_is_not_mixed_in(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*COMMAND, "--set", "epochs=3", "--out", str(compared)]) == 1
    assert "holds a study with another base" in capsys.readouterr().err


def test_a_running_study_shows_where_it_stands_and_loads_itself_again(tmp_path: Path) -> None:
    study = small_study(seeds=1)
    order = trials(study, study.scales["own"])
    place = Place(tmp_path, tmp_path / "out")
    from flyweight.cli.studying import _Pace
    from flyweight.report.study import build_study_report

    pace = _Pace(study, study.scales["own"], len(order))
    for event in run_trials(study, study.scales["own"], order, place, jobs=1):
        if isinstance(event, TrialDone):
            pace.done += 1
            pace.fresh += 1
            running = pace.facts(event)
            break
    page = build_study_report(analyse(study, "own", order, place, running), place.out).html.read_text()
    assert 'http-equiv="refresh"' in page
    assert "1 of 2 runs" in page
    finished = build_study_report(analyse(study, "own", order, place), place.out).html.read_text()
    assert 'http-equiv="refresh"' not in finished


def small_study(seeds: int) -> Study:
    recipe = load_recipe("compare").with_settings(["epochs=1", "epoch_images=256"])
    return comparison(["sample"], ["tiny_cnn_4", "tiny_cnn_8"], recipe, seeds=seeds, per_class=60)


def test_what_is_below_five_times_chance_is_not_ranked(tmp_path: Path) -> None:
    scores = {"tiny_cnn_8": [0.9, 0.9, 0.9], "tiny_cnn_6": [0.8, 0.81, 0.8], "tiny_cnn_4": [0.4, 0.4, 0.4]}
    study, place = made_up(tmp_path, scores)
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    weak = arm(facts, "tiny_cnn_4")
    assert not weak.enough
    assert weak.letters == ""
    assert [(pair.first, pair.second) for pair in facts.pairs] == [("tiny_cnn_8", "tiny_cnn_6")]
    assert (arm(facts, "tiny_cnn_8").letters, arm(facts, "tiny_cnn_6").letters) == ("a", "b")
    assert "tiny_cnn_4" not in fronts(facts.datasets[0])["size"]
    assert "not trained enough" in latex_table(facts)


def test_networks_that_do_not_differ_share_a_letter(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_8": [0.85, 0.9, 0.88], "tiny_cnn_6": [0.88, 0.86, 0.88]})
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    assert {arm.letters for arm in facts.datasets[0].arms} == {"a"}


def test_pretraining_that_saw_the_test_images_is_said(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_8": [0.9, 0.9, 0.9], "tiny_cnn_6": [0.8, 0.8, 0.8]})
    data = study.datasets["sample"].model_copy(update={"seen_by": ("ImageNet",)})
    study = study.model_copy(update={"datasets": {"sample": data}})
    for file in (tmp_path / "trials" / "sample" / "tiny_cnn_8").rglob(RESULT):
        file.write_text(json.dumps({**json.loads(file.read_text()), "pretrained": "ImageNet-1k"}))
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    assert arm(facts, "tiny_cnn_8").seen
    assert not arm(facts, "tiny_cnn_6").seen


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        (["tiny_cnn_4"], {}, "needs two networks"),
        (["tiny_cnn_4", "tiny_cnn_8"], {"part": "all"}, "--part 'all'"),
        (["tiny_cnn_4", "tiny_cnn_8"], {"seeds": 11}, "10 folds"),
        (["tiny_cnn_4", "tiny_cnn_8"], {"recipe": Recipe(model={"pretrained": "own/net"})}, "--pretrained"),
    ],
)
def test_what_cannot_be_compared_is_said(models: list[str], options: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        comparison(["sample"], models, **{"recipe": Recipe(), "seeds": 1, **options})  # type: ignore[arg-type]


def test_a_network_that_does_not_exist_is_said_before_anything_runs() -> None:
    with pytest.raises(ModelError, match="tiny_cnn_5"):
        comparison(["sample"], ["tiny_cnn_4", "tiny_cnn_5"], Recipe(), seeds=1)
