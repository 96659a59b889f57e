"""A map over rates and batch sizes: every cell is a result, one that diverges too, and the test part stays closed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from flyweight.cli import run
from flyweight.cli.studying import _in_words
from flyweight.errors import RecipeError
from flyweight.measure.statistics import binomial_tail
from flyweight.report.build import rebuild
from flyweight.report.stability import csv_map, heat_map
from flyweight.report.study import StudyFacts
from flyweight.studies.mapped import at_chance, courses, maps, outcome
from flyweight.studies.stability import stability
from flyweight.studies.study import Trial, recipe_of, trials
from flyweight.train.recipe import Recipe, load_recipe

COMMAND = [
    "stability", "map", "sample", "--recipe", "smoke", "--set", "model.name=tiny_cnn_4",
    "--set", "optim.weight_decay=0", "--lr", "0.1,1e30",
    "--batch-size", "16,32", "--epochs", "3", "--per-class", "30", "--jobs", "1", "--json",
]  # fmt: skip


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("map") / "out"
    assert run([*COMMAND, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def facts(mapped: Path) -> StudyFacts:
    return StudyFacts.model_validate_json((mapped / "report.json").read_text())


def test_every_cell_is_classed_and_those_that_diverged_end_nothing(facts: StudyFacts) -> None:
    (only,) = facts.maps
    assert only.optimizer == "sgd"
    found = {(cell.lr, cell.batch_size): cell for cell in only.cells}
    assert set(found) == {(lr, size) for lr in (0.1, 1e30) for size in (16, 32)}
    for size in (16, 32):
        assert found[0.1, size].outcome != "diverged"
        assert found[0.1, size].accuracy.value is not None
        lost = found[1e30, size]
        assert (lost.outcome, lost.accuracy.value, lost.course.diverged) == ("diverged", None, 1)
        assert lost.course.diverged_epoch in (1, 2, 3)
    assert facts.missing == ()
    assert len(facts.diverged) == 2


def test_the_best_cell_has_converged(facts: StudyFacts) -> None:
    best = max(facts.maps[0].cells, key=lambda cell: cell.accuracy.value or 0.0)
    assert best.outcome == "converged"


def test_every_arm_has_its_convergence_and_the_share_of_seeds_that_diverged(facts: StudyFacts) -> None:
    found = {course.arm: course for course in facts.convergence}
    assert len(found) == 4
    assert found["sgd-lr0.1-b16"].share == 0.0
    assert 1 <= (found["sgd-lr0.1-b16"].epochs_to_90 or 0) <= 3
    assert found["sgd-lr0.1-b16"].gap is not None
    assert found["sgd-lr0.1-b16"].grad_norm_max is not None  # the recipe clips
    assert found["sgd-lr1e+30-b16"].share == 1.0


def test_every_batch_size_passes_over_the_images_equally_often(mapped: Path) -> None:
    results = [json.loads(path.read_text()) for path in (mapped / "trials").rglob("result.json")]
    passes = {result["image_passes"] for result in results if "image_passes" in result}
    assert len(passes) == 1


def test_nothing_opens_the_test_part(mapped: Path) -> None:
    assert not (mapped / "test-openings.jsonl").exists()


def test_the_csv_holds_the_same_cells(mapped: Path, facts: StudyFacts) -> None:
    rows = list(csv.DictReader((mapped / "map.csv").read_text().splitlines()))
    cells = {(cell.lr, cell.batch_size): cell for cell in facts.maps[0].cells}
    assert len(rows) == len(cells)
    for row in rows:
        cell = cells[float(row["lr"]), int(row["batch_size"])]
        assert row["outcome"] == cell.outcome
        assert row["accuracy"] == ("" if cell.accuracy.value is None else str(cell.accuracy.value))


def test_the_page_draws_the_map_and_is_drawn_again_from_its_json(mapped: Path, tmp_path: Path) -> None:
    page = rebuild(mapped, tmp_path).html.read_text()
    assert page == (mapped / "report.html").read_text()
    assert 'id="plot-map-sample-sgd"' in page
    assert "sample/sgd-lr1e+30-b16/seed0" in page


def test_the_same_command_repeats_nothing(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (mapped / "trials").rglob("result.json")}
    assert run([*COMMAND, "--out", str(mapped)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (mapped / "trials").rglob("result.json")} == before


@pytest.mark.parametrize(
    ("diverged", "accuracies", "expected"),
    [
        (0, [0.90], "converged"),
        (0, [0.83], "converged"),  # (0.82 - 0.1) / (0.9 - 0.1) is nine tenths
        (0, [0.81], "slow"),
        (0, [0.1], "slow"),
        (1, [0.90, 0.89], "diverged"),
        (3, [], "diverged"),
    ],
)
def test_a_cell_is_diverged_with_any_seed_and_slow_below_nine_tenths_of_the_way_to_the_best(
    diverged: int, accuracies: list[float], expected: str
) -> None:
    assert outcome(diverged, accuracies, best=0.9, chance=0.1) == expected


@pytest.mark.parametrize(
    ("right", "n", "classes", "majority", "nothing"),
    [
        (100, 1000, 10, 0.1, True),
        (122, 1000, 10, 0.1, True),  # p = 0.013
        (124, 1000, 10, 0.1, False),  # p = 0.008
        (20, 1000, 10, 0.1, True),  # below chance is nothing too
        (700, 1000, 2, 0.7, True),  # always the most frequent class
        (740, 1000, 2, 0.7, False),
    ],
)
def test_at_chance_is_what_an_exact_test_at_one_percent_does_not_find_above_it(
    right: int, n: int, classes: int, majority: float, nothing: bool
) -> None:
    result = {"accuracy": right / n, "n": n, "classes": classes, "majority": majority}
    assert at_chance(result) is nothing
    p = binomtest(right, n, max(1 / classes, majority), alternative="greater").pvalue
    assert binomial_tail(right, n, max(1 / classes, majority)) == pytest.approx(p)
    assert bool(p > 0.01) is nothing


def test_runs_that_sat_at_chance_are_told_in_the_map_and_in_the_convergence(tmp_path: Path) -> None:
    study = stability("sample", Recipe(), lrs=[0.1, 1e-9], batch_sizes=[32], optims=["sgd"], seeds=2)
    size, results = study.scales["own"], {}
    order = trials(study, size)
    went = {"best": 0.1, "epochs_to_90": 1, "epochs_to_99": 1, "tail_deviation": 0.0, "gap": 0.0}
    for trial in order:
        learned = study.arms[trial.arm].recipe["optim"]["lr"] == 0.1
        results[trial] = {
            "accuracy": 0.9 if learned else 0.1 + 0.001 * trial.seed, "n": 1000, "classes": 10,
            "convergence": {**went, "largest_drop": 0.0, "grad_norm_max": None},
        }  # fmt: skip
    (found,) = maps(study, size, order, results)
    cells = {cell.lr: cell for cell in found.cells}
    assert (cells[0.1].outcome, cells[1e-9].outcome) == ("converged", "at chance")
    assert {course.at_chance for course in courses(study, results)} == {0, 2}
    assert "10.1<br>at chance 2/2" in json.dumps(heat_map(found))
    assert "10.1 chance 2/2" in _in_words(cells[1e-9])
    assert ",at chance," in csv_map([found])


def test_what_belongs_to_the_recipes_own_optimizer_is_not_given_to_another() -> None:
    recipe = Recipe.model_validate({"optim": {"name": "adamw", "betas": [0.8, 0.9], "eps": 1e-5}, "augment": {}})
    study = stability("sample", recipe, lrs=[0.1], batch_sizes=[32], optims=["adamw", "sgd"], seeds=1)
    size = study.scales["own"]
    own, other = (recipe_of(study, size, trial).optim for trial in trials(study, size))
    assert (own.betas, own.eps) == ((0.8, 0.9), 1e-5)
    assert (other.betas, other.eps) == (None, None)


def test_all_cells_see_the_same_validation_images_with_every_seed() -> None:
    study = stability("sample", Recipe(), lrs=[0.1, 1], batch_sizes=[32], optims=["sgd"], seeds=3)
    cells = [Trial(seed, "sample", "sgd-lr0.1-b32") for seed in range(3)]
    assert {recipe_of(study, study.scales["own"], cell).data.val_fold for cell in cells} == {0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lrs": [0.1]}, "needs two cells, found 1"),
        ({"seeds": 0}, "0 seeds"),
        ({"optims": ["sgdd"]}, "no optimizer 'sgdd'"),
        ({"lrs": [-1.0, 0.1]}, "optim.lr"),
        ({"batch_sizes": [1, 32]}, "batch_size"),
        ({"recipe": load_recipe("finetune")}, "without stages"),
    ],
)
def test_what_makes_no_map_is_said_before_anything_runs(options: dict[str, object], words: str) -> None:
    given = {"recipe": Recipe(), "lrs": [0.1, 0.2], "batch_sizes": [32], "optims": ["sgd"], "seeds": 1, **options}
    with pytest.raises(RecipeError, match=words):
        stability("sample", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("rates", ["0.1,fast", "", "0.1;0.2", "0,1", "nan"])
def test_rates_that_are_no_numbers_are_said(rates: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stability", "map", "sample", "--lr", rates, "--out", str(tmp_path)]) == 1
    assert "is not a list of numbers above zero" in capsys.readouterr().err


def test_no_seeds_is_wrong_usage(tmp_path: Path) -> None:
    assert run(["stability", "map", "sample", "--seeds", "0", "--out", str(tmp_path)]) == 2


def test_the_range_command_suggests_a_rate_and_draws_the_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["stability", "range", "sample", "--recipe", "smoke", "--steps", "40", "--low", "0.001", "--high", "1e6"]
    settings = ["--set", "model.name=tiny_cnn_4", "--set", "threads=1", "--set", "compile=false"]
    assert run([*command, *settings, "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "range.json").read_text())
    assert found["suggested"] * 10 > 0.001
    assert 'id="plot-range"' in (tmp_path / "range.html").read_text()
