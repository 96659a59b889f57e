"""A teacher's answers are learned beside the labels; one that does not fit is refused before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from flyweight.data.dataset import Dataset
from flyweight.errors import ExportError, ModelError, RecipeError
from flyweight.export import export
from flyweight.export.bundle import copy_bundle
from flyweight.export.trained import export_variant
from flyweight.train.distill import load_teacher
from flyweight.train.loss import distance, similarity
from flyweight.train.recipe import DistillPart, Recipe, load_recipe
from flyweight.train.remembered import Remembering
from flyweight.train.run import run, train_and_wait
from flyweight.train.trained import Trained


@pytest.fixture(scope="module")
def teacher(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    recipe = Recipe.model_validate(
        {"model": {"name": "tiny_cnn_8"}, "epochs": 12, "batch_size": 64, "precision": "fp32", "threads": 1,
         "channels_last": True, "compile": False}
    )  # fmt: skip
    train_and_wait(few, recipe, out)
    return out


def taught(quick: Recipe, teacher: Path, **changes: float) -> Recipe:
    return quick.model_copy(update={"distill": DistillPart(teacher=str(teacher), **changes)})


def test_the_distance_is_the_divergence_by_hand() -> None:
    student, theirs = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p, q = F.softmax(theirs / 2, 1)[0].double(), F.softmax(student / 2, 1)[0].double()
    by_hand = 4 * sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True))
    assert float(distance(student, theirs, 2.0)) == pytest.approx(by_hand, rel=1e-5)
    assert float(distance(student, student, 4.0)) == pytest.approx(0.0, abs=1e-6)


def test_a_student_comes_closer_to_its_teacher_than_one_that_saw_labels_alone(
    few: Dataset, quick: Recipe, teacher: Path, tmp_path: Path
) -> None:
    longer = quick.model_copy(update={"epochs": 6})
    alone = train_and_wait(few, longer, tmp_path / "alone")
    student = train_and_wait(few, taught(longer, teacher, weight=1.0, temperature=2.0), tmp_path / "student")
    images = torch.stack([torch.from_numpy(few.images.read(i)).permute(2, 0, 1) for i in range(600, 800)])
    with torch.no_grad():
        answers = Trained.load(teacher).network()(images)
        away = [float(distance(one.network()(images), answers, 2.0)) for one in (alone, student)]
    assert away[1] < away[0]


def test_a_distilled_run_is_repeatable_and_knows_its_teacher(
    few: Dataset, quick: Recipe, teacher: Path, tmp_path: Path
) -> None:
    one = train_and_wait(few, taught(quick, teacher), tmp_path / "one")
    two = train_and_wait(few, taught(quick, teacher), tmp_path / "two")
    assert all(torch.equal(value, two.weights[name]) for name, value in one.weights.items())
    assert one.recipe.distill is not None


def test_several_teachers_answer_with_their_mean_probability(few: Dataset, teacher: Path) -> None:
    images = torch.stack([torch.from_numpy(few.images.read(i)).permute(2, 0, 1) for i in range(8)])
    alone = load_teacher(DistillPart(teacher=str(teacher)))(images)
    twice = load_teacher(DistillPart(teacher=str(teacher), others=(str(teacher),)))(images)
    assert torch.allclose(twice.softmax(1), alone.softmax(1), atol=1e-6)


def test_features_are_as_alike_as_their_images_are_by_hand() -> None:
    ours, theirs = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    # Similarities as unit rows: (1, 0) and (0, 1) of ours, (1, 1) / √2 twice of theirs.
    by_hand = (1 - 2**-0.5) ** 2 + 0.5
    assert float(similarity(ours, theirs)) == pytest.approx(by_hand, rel=1e-5)
    assert float(similarity(ours, 3 * ours)) == pytest.approx(0.0, abs=1e-6)


def test_a_teacher_is_asked_once_for_the_same_images(few: Dataset, teacher: Path, tmp_path: Path) -> None:
    part = DistillPart(teacher=str(teacher), cached=True)
    images = torch.stack([torch.from_numpy(few.images.read(i)).permute(2, 0, 1) for i in range(8)])
    first = Remembering(load_teacher(part), part, tmp_path)
    answer = first(images)
    again = Remembering(load_teacher(part), part, tmp_path)
    assert torch.equal(again(images), answer)
    assert (first.asked, again.asked) == (1, 0)
    again(images.flip(3))
    assert again.asked == 1
    assert torch.allclose(answer, load_teacher(part)(images), atol=0.02)


def test_features_that_would_have_to_be_kept_on_disk_are_refused() -> None:
    with pytest.raises(ValueError, match="features are not kept on disk"):
        DistillPart(teacher="run", features=1.0, cached=True)


def test_a_teacher_with_other_classes_is_refused(few: Dataset, quick: Recipe, teacher: Path, tmp_path: Path) -> None:
    fewer = few.take((few.labels < 9).nonzero()[0])
    fewer = type(few)(**{**vars(fewer), "classes": few.classes[:9]})
    with pytest.raises(ModelError, match="knows 10 classes and the data have 9") as caught:
        train_and_wait(fewer, taught(quick, teacher), tmp_path / "run")
    assert few.classes[9] in caught.value.what


def test_a_teacher_of_other_pixels_is_refused(few: Dataset, quick: Recipe, teacher: Path, tmp_path: Path) -> None:
    recipe = taught(quick, teacher).with_settings(["data.image_size=20"])
    with pytest.raises(ModelError, match="sees 1 × 28 px, the student 1 × 20 px"):
        train_and_wait(few, recipe, tmp_path / "run")


def test_a_teacher_that_is_no_run_is_refused(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not the folder of a finished run"):
        train_and_wait(few, taught(quick, tmp_path / "nowhere"), tmp_path / "run")


def test_a_finished_run_is_trained_on_its_int8_levels_and_ships(few: Dataset, teacher: Path, tmp_path: Path) -> None:
    recipe = load_recipe("qat").with_settings(["threads=1", f"distill.teacher={teacher}"])
    started = Trained.load(teacher)
    trained = train_and_wait(few, recipe, tmp_path / "int8", initial=started)
    assert trained.architecture.quantized
    assert abs(trained.metrics["val_accuracy"] - started.metrics["val_accuracy"]) < 0.1
    bundle = export(trained, few, tmp_path / "bundle")
    assert bundle.default == "int8"
    both = export_variant(export(started, few, tmp_path / "both"), trained, few, tmp_path / "both")
    assert (both.default, sorted(both.variants)) == ("fp32", ["fp32", "int8"])
    with pytest.raises(ExportError, match="has a variant 'int8' already"):
        export_variant(both, trained, few, tmp_path / "again")
    renamed = copy_bundle(both, tmp_path / "renamed", name="mine", default="int8")
    assert (renamed.name, renamed.default) == ("mine", "int8")
    assert renamed.variant("fp32").file.read_bytes() == both.variant("fp32").file.read_bytes()


def test_a_teacher_that_was_moved_is_the_same_teacher(
    few: Dataset, quick: Recipe, teacher: Path, tmp_path: Path
) -> None:
    train_and_wait(few, taught(quick, teacher), tmp_path / "run")
    copied = shutil.copytree(teacher, tmp_path / "elsewhere")
    assert train_and_wait(few, taught(quick, copied), tmp_path / "run").recipe.distill is not None
    other = train_and_wait(few, quick, tmp_path / "other")
    assert other.recipe.distill is None
    with pytest.raises(RecipeError, match="another teacher"):
        train_and_wait(few, taught(quick, tmp_path / "other"), tmp_path / "run")


def test_a_stage_on_int8_levels_follows_one_in_float_in_the_same_run(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    stages = [{"name": "float", "epochs": 2}, {"name": "int8", "epochs": 1, "quantize": "int8"}]
    recipe = Recipe.model_validate({**quick.model_dump(), "stages": stages})
    trained = train_and_wait(few, recipe, tmp_path / "run")
    assert [step["op"] for step in trained.architecture.surgery] == ["fold", "quantize"]
    rows = trained.history
    assert rows[-1]["val_accuracy"] > rows[-2]["val_accuracy"] - 0.1


def test_the_qat_recipe_needs_a_run_to_begin_with(few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no run was given"):
        list(run(few, load_recipe("qat"), tmp_path / "run"))
