"""`compare` trains networks alike, times their files, and says which differ."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.studies.small import made_up

from flyweight.cli import run
from flyweight.errors import ModelError, RecipeError
from flyweight.measure.statistics import wilson
from flyweight.models.weights import load_weights
from flyweight.report.study import ArmFacts, StudyFacts, build_study_report, markdown
from flyweight.report.tables import csv_table, latex_table
from flyweight.report.tradeoff import fronts
from flyweight.studies.analyse import analyse, enough
from flyweight.studies.compared import comparison
from flyweight.studies.conduct import Pace
from flyweight.studies.devices import device_rankings
from flyweight.studies.schedule import TrialDone, run_trials
from flyweight.studies.study import Question, Study, Subset, recipe_of, trials
from flyweight.studies.trial import CLAIM, RESULT, Place, claim
from flyweight.train.recipe import Recipe, load_recipe

PRETRAINED = "flyweight/mobilenetv3_small_100.tiny_imagenet"
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
    assert facts.effort.startswith(
        "Tuning effort on sample, settings tried × image passes + those of the training, equal:"
    )
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
    assert "holds a study that differs in: part" in capsys.readouterr().err


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
    assert "holds a study that differs in: base" in capsys.readouterr().err


def test_a_running_study_shows_where_it_stands_and_loads_itself_again(tmp_path: Path) -> None:
    study = small_study(seeds=1)
    order = trials(study, study.scales["own"])
    place = Place(tmp_path, tmp_path / "out")
    pace = Pace(study, study.scales["own"], len(order))
    for event in run_trials(study, study.scales["own"], order, place, jobs=1):
        pace.see(event)
        if isinstance(event, TrialDone):
            running = pace.facts(event)
            break
    page = build_study_report(analyse(study, "own", order, place, running), place.out).html.read_text()
    assert 'http-equiv="refresh"' in page
    assert "1 of 2 runs" in page
    finished = build_study_report(analyse(study, "own", order, place), place.out).html.read_text()
    assert 'http-equiv="refresh"' not in finished


def small_study(seeds: int) -> Study:
    recipe = load_recipe("compare").with_settings(["epochs=1", "epoch_images=256"])
    return comparison(["sample"], ["tiny_cnn_4", "tiny_cnn_8"], recipe, seeds=seeds, sizes=[Subset(per_class=60)])


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
    assert r"\dag: pretraining saw images of this data set" in latex_table(facts)


@pytest.mark.parametrize(("source", "saw"), [("tiny-imagenet:DIR", True), ("imagenet:DIR", True), ("sample", False)])
def test_a_source_knows_what_pretraining_has_seen_of_it(source: str, saw: bool) -> None:
    study = comparison([source], ["tiny_cnn_4", "tiny_cnn_8"], load_recipe("compare"), seeds=1)
    (data,) = study.datasets.values()
    assert any(part in "timm: in1k" for part in data.seen_by) is saw
    assert any(part in load_weights(PRETRAINED).data for part in data.seen_by) is saw


def test_the_worst_class_and_the_training_images_are_told(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_8": [0.9, 0.9, 0.9], "tiny_cnn_6": [0.8, 0.8, 0.8]})
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    (data,) = facts.datasets
    assert data.worst_class(arm(facts, "tiny_cnn_8")) == ("j", 0.25)
    row = next(csv.DictReader(csv_table(facts).splitlines()))
    assert (row["worst_class"], row["train_images"]) == ("j", "1000")
    page = build_study_report(facts, tmp_path).html.read_text()
    assert "1,000 training images" in page


def test_seeds_at_chance_are_told_beside_their_arm(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_4": [0.1, 0.1, 0.5], "tiny_cnn_8": [0.9] * 3})
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    assert [found.at_chance for found in facts.datasets[0].arms] == [2, 0]
    assert "2 of 3 seeds at chance" in markdown(facts)
    assert "2 of 3 seeds at chance" in build_study_report(facts, tmp_path).html.read_text()
    assert "2 of 3 seeds at chance" in latex_table(facts)


def test_an_answer_about_what_was_not_trained_enough_says_so(tmp_path: Path) -> None:
    study, place = made_up(tmp_path, {"tiny_cnn_8": [0.4, 0.4, 0.4], "tiny_cnn_6": [0.3, 0.3, 0.3]})
    asked = Question(ask="Is wider better?", short="wider", first=("tiny_cnn_8",), second=("tiny_cnn_6",))
    study = study.model_copy(update={"questions": (asked,)})
    facts = analyse(study, "own", trials(study, study.scales["own"]), place)
    assert facts.verdicts[0].caveat == "not trained enough"
    assert "(not trained enough)" in markdown(facts)


def test_one_more_arm_leaves_finished_trials_as_they_are(tmp_path: Path) -> None:
    study = small_study(seeds=1)
    place = Place(tmp_path, tmp_path / "out")
    claim(study, study.scales["own"], place)
    more = study.model_copy(update={"arms": {**study.arms, "again": study.arms["tiny_cnn_4"]}})
    claim(more, more.scales["own"], place)
    changed = study.arms["tiny_cnn_4"].model_copy(update={"recipe": {"model": {"name": "pool_cnn"}}})
    with pytest.raises(RecipeError, match="differs in: arms"):
        claim(study.model_copy(update={"arms": {"tiny_cnn_4": changed}}), study.scales["own"], place)


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        (["tiny_cnn_4"], {}, "needs two networks"),
        (["tiny_cnn_4", "tiny_cnn_8"], {"part": "all"}, "--part 'all'"),
        (["tiny_cnn_4", "tiny_cnn_8"], {"seeds": 11}, "10 folds"),
        (["tiny_cnn_4", "tiny_cnn_8"], {"recipe": Recipe(model={"pretrained": "own/net"})}, "--pretrained"),
        (["tiny_cnn_4"], {"more": [Recipe()]}, "two recipes are called 'custom'"),
        (["tiny_cnn_4"], {"more": [Recipe(name="b", data={"image_size": 40})]}, "differ in their data part"),
    ],
)
def test_what_cannot_be_compared_is_said(models: list[str], options: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        comparison(["sample"], models, **{"recipe": Recipe(), "seeds": 1, **options})  # type: ignore[arg-type]


def test_a_network_that_does_not_exist_is_said_before_anything_runs() -> None:
    with pytest.raises(ModelError, match="tiny_cnn_5"):
        comparison(["sample"], ["tiny_cnn_4", "tiny_cnn_5"], Recipe(), seeds=1)


def test_a_network_that_diverges_is_said_beside_the_others_and_ends_no_comparison(tmp_path: Path) -> None:
    recipe = load_recipe("compare").with_settings(["epochs=1", "epoch_images=128", "optim.name=sgd", "optim.lr=1e30"])
    study = comparison(["sample"], ["tiny_cnn_4", "tiny_cnn_8"], recipe, seeds=1, sizes=[Subset(per_class=20)])
    order, place = trials(study, study.scales["own"]), Place(Path(), tmp_path)
    events = list(run_trials(study, study.scales["own"], order, place, jobs=1))
    assert [event.result["diverged"]["epoch"] for event in events if isinstance(event, TrialDone)] == [1, 1]
    facts = analyse(study, "own", order, place)
    assert (facts.datasets, facts.missing) == ((), ())
    assert [course.share for course in facts.convergence] == [1.0, 1.0]
    assert set(facts.diverged) == {trial.name for trial in order}
    assert not (tmp_path / "test-openings.jsonl").exists()  # nothing was scored


def test_a_field_that_a_later_version_adds_makes_no_other_study(tmp_path: Path) -> None:
    study = small_study(seeds=1)
    place = Place(Path(), tmp_path)
    claim(study, study.scales["own"], place)
    there = json.loads((tmp_path / CLAIM).read_text())
    there["scale"]["subsets"]["sample"] |= {"classes": None, "colour": None}
    (tmp_path / CLAIM).write_text(json.dumps(there))
    claim(study, study.scales["own"], place)


def test_several_recipes_make_an_arm_each_and_one_network_is_enough(tmp_path: Path) -> None:
    recipes = [load_recipe(name).with_settings(["epochs=1"]) for name in ("compare", "default")]
    study = comparison(["sample"], ["tiny_cnn_4"], recipes[0], seeds=1, more=recipes[1:])
    size = study.scales["own"]
    order = trials(study, size)
    assert [trial.arm for trial in order] == ["tiny_cnn_4.compare", "tiny_cnn_4.default"]
    for trial, recipe in zip(order, recipes, strict=True):
        found = recipe_of(study, size, trial)
        assert (found.model.name, found.optim, found.augment) == ("tiny_cnn_4", recipe.optim, recipe.augment)


def test_arms_with_fewer_seeds_are_shown_with_their_number_and_have_no_letter(tmp_path: Path) -> None:
    scores = {"tiny_cnn_8": [0.9, 0.9, 0.91], "tiny_cnn_6": [0.7, 0.71, 0.7], "tiny_cnn_4": [0.8, 0.8, 0.8]}
    study, place = made_up(tmp_path, scores)
    once = study.scales["own"].model_copy(update={"seeds_of": {"tiny_cnn_4": 1}})
    question = Question(ask="Is it?", short="is it", first="tiny_cnn_8", second="tiny_cnn_4")
    other = Question(ask="Is it too?", short="too", first="tiny_cnn_8", second="tiny_cnn_6")
    study = study.model_copy(update={"scales": {"own": once}, "questions": (question, other)})
    order = trials(study, once)
    assert Counter(trial.arm for trial in order) == {"tiny_cnn_8": 3, "tiny_cnn_6": 3, "tiny_cnn_4": 1}
    facts = analyse(study, "own", order, place)
    found = arm(facts, "tiny_cnn_4")
    assert (len(found.per_seed), found.letters) == (1, "")
    low, high = wilson(round(found.per_seed[0] * 2000), 2000)  # over images, for want of seeds
    assert (found.accuracy.low, found.accuracy.high) == (low, high)
    assert [(pair.first, pair.second) for pair in facts.pairs] == [("tiny_cnn_8", "tiny_cnn_6")]
    single, three = facts.verdicts
    assert (single.seeds, single.answer) == (1, "too few seeds")
    assert (three.seeds, three.answer, three.p_holm) == (3, "helps", three.p)  # the other is not in its family
    assert ", 1 seed" in markdown(facts)


def test_an_arm_that_others_need_has_as_many_seeds_as_they() -> None:
    study = small_study(seeds=3)
    content = study.model_dump(by_alias=True)
    content["scales"]["own"]["seeds_of"] = {"tiny_cnn_4": 1}
    content["arms"]["tiny_cnn_8"]["from"] = "tiny_cnn_4"
    with pytest.raises(ValueError, match="more than tiny_cnn_4, which it needs"):
        Study.model_validate(content)
    content["scales"]["own"]["seeds_of"] = {"tiny_cnn_5": 1}
    with pytest.raises(ValueError, match="no arm or group tiny_cnn_5"):
        Study.model_validate(content)


def test_files_are_ranked_on_every_machine_that_timed_them() -> None:
    def cost(ms: float, backend: str = "onnxruntime") -> dict[str, object]:
        return {"backend": backend, "latency": {"p50": {"ms": ms, "low_ms": ms - 0.1, "high_ms": ms + 0.1}}}

    def record(cpu: str, **timed: list[dict[str, object]]) -> dict[str, object]:
        costs = {f"sample/{name}": found for name, found in timed.items()}
        asked = {name: "plain" if "a" in name.rpartition("/")[2] else name for name in costs}
        return {"here": {"cpu": cpu, "threads": 1}, "asked": asked, "costs": costs, "conditions": {}}

    here = record("here", a=[cost(1.0)], also_a=[cost(1.0)], b=[cost(3.0), cost(0.5, "openvino")], c=[cost(3.15)])
    there = record("there", a=[cost(9.0)], b=[cost(2.0)], c=[cost(5.0)])
    found = device_rankings({**here, "others": [there]}, {"sample": ["a", "also_a", "b", "c"]})
    assert [(one.device, one.backend, one.words) for one in found] == [
        ("here", "onnxruntime", "a < b = c"),
        ("there", "onnxruntime", "b < c < a"),
    ]
    assert device_rankings(None, {"sample": ["a"]}) == ()


def test_data_that_is_not_there_does_not_take_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["compare", str(tmp_path / "none"), "--models", "tiny_cnn_4,tiny_cnn_8", "--out", str(out)]) == 1
    assert "none" in capsys.readouterr().err
    assert not out.exists()
