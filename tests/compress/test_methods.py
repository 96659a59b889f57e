"""Every method that changes a network: its result reloads from disk with equal logits, and ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flyweight.compress import METHODS
from flyweight.compress.context import Context, Progressing, Said
from flyweight.compress.exit import choose_threshold
from flyweight.compress.prune import Prune, prune
from flyweight.compress.qat import layers_kept
from flyweight.compress.step import parse_step, read_options
from flyweight.data.dataset import Dataset
from flyweight.errors import BundleError, CompressError, OrderError
from flyweight.export import export
from flyweight.export.onnx import to_onnx
from flyweight.export.parity import file_logits, torch_logits
from flyweight.measure.exit_speed import leaves_early
from flyweight.measure.trial import run_trial
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle
from flyweight.train.trained import Trained
from models.settled import pixels

# By method: the shortest of it that means something on the small run.
STEPS = {
    "fold": "fold",
    "prune": "prune:macs=0.5",
    "finetune": "finetune:epochs=1",
    "distill": "distill:epochs=1,features=1",
    "qat": "qat:epochs=1",
    "exit": "exit:at=0.6",
}


def done(events: Progressing) -> Trained:
    """Run a method to its end."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def apply(text: str, trained: Trained, context: Context) -> Trained:
    step = parse_step(text)
    method = METHODS[step.method]
    return done(method.apply(trained, context, read_options(step, method.options)))


def test_every_method_of_the_family_is_in_the_suite() -> None:
    assert set(STEPS) == set(METHODS)


@pytest.mark.parametrize("method", STEPS)
def test_its_result_reloads_from_disk_with_equal_logits_and_its_file_agrees(
    method: str, trained: Trained, context: Context, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in trained.weights.items()}
    made = apply(STEPS[method], trained, context)
    made.save(tmp_path / "saved")
    again = Trained.load(tmp_path / "saved")
    images = pixels(8, 1, 28)
    found = torch_logits(made.network(), images)
    assert np.array_equal(found, torch_logits(again.network(), images))
    assert 0.0 < made.metrics["val_accuracy"] <= 1.0
    assert all(torch.equal(value, trained.weights[name]) for name, value in before.items()), "the run was changed"
    file = to_onnx(again.network(), again.architecture, tmp_path / "model.onnx")
    wanted = 0.1 * np.abs(found).max() if method == "qat" else 1e-4
    assert np.abs(file_logits(file, images) - found).max() < wanted


def test_pruning_removes_channels_from_the_file_and_what_training_brings_back_is_kept(
    trained: Trained, context: Context, tmp_path: Path
) -> None:
    pruned = apply("prune:macs=0.5", trained, context)
    files = [
        to_onnx(one.network(), one.architecture, tmp_path / f"{i}.onnx") for i, one in enumerate((trained, pruned))
    ]
    costs = [count(file) for file in files]
    assert costs[1].macs <= 0.5 * costs[0].macs
    assert files[1].stat().st_size < files[0].stat().st_size
    tuned = apply("finetune:epochs=1", pruned, context)
    assert tuned.architecture == pruned.architecture
    assert tuned.history[-1]["epoch"] == 1


def test_a_chain_may_prune_what_was_folded_and_train_on_int8_levels_what_was_pruned(
    trained: Trained, context: Context
) -> None:
    folded = apply("fold", trained, context)
    images = pixels(8, 1, 28)
    assert np.abs(torch_logits(folded.network(), images) - torch_logits(trained.network(), images)).max() < 1e-4
    pruned = apply("prune:params=0.6", folded, context)
    levels = apply("qat:epochs=1,keep=first", pruned, context)
    assert [step["op"] for step in levels.architecture.surgery] == ["fold", "prune", "quantize"]
    assert len(levels.architecture.surgery[-1]["keep_float"]) == 1


@pytest.mark.parametrize(
    ("target", "why"),
    [("macs=0.0001", "out of reach"), ("macs=0", "leaves nothing"), ("macs=0.5,size=0.5", "give one of")],
)
def test_a_target_that_cannot_be_is_refused(target: str, why: str, trained: Trained, context: Context) -> None:
    with pytest.raises(CompressError, match=why):
        apply(f"prune:{target}", trained, context)


@pytest.mark.parametrize(("first", "second"), [("qat:epochs=1", "prune:macs=0.5"), ("exit", "qat:epochs=1")])
def test_the_wrong_order_of_two_methods_is_a_typed_error(
    first: str, second: str, trained: Trained, context: Context
) -> None:
    made = apply(first, trained, context)
    with pytest.raises(OrderError, match="comes before"):
        apply(second, made, context)


@pytest.mark.slow
def test_pruning_to_a_size_takes_limits_with_units(trained: Trained, context: Context, tmp_path: Path) -> None:
    made = done(prune(trained, context, Prune(size="20KB", importance="taylor")))
    assert to_onnx(made.network(), made.architecture, tmp_path / "m.onnx").stat().st_size <= 20_000


def test_images_that_go_on_get_the_answer_they_had_and_one_at_a_time_is_no_other(
    trained: Trained, context: Context, few: Dataset, tmp_path: Path
) -> None:
    made = apply("exit:at=0.6,cost=0.05", trained, context)
    network = made.network()
    images = np.stack([few.images.read(i).transpose(2, 0, 1) for i in range(100)])
    early, _ = network.both(torch.from_numpy(images))
    network.threshold = float(early.detach().softmax(1).amax(1).sort().values[49:51].mean())  # between two images
    sure = network.sure(early).numpy()
    assert 0 < sure.sum() < 100
    found, before = torch_logits(network, images), torch_logits(trained.network(), images)
    assert np.abs(found[~sure] - before[~sure]).max() < 1e-4
    assert np.array_equal(found[sure], early.detach().numpy()[sure])
    file = to_onnx(network, made.architecture, tmp_path / "exit.onnx")
    single = np.concatenate([file_logits(file, images[i : i + 1]) for i in range(100)])
    assert np.abs(single - found).max() < 1e-4
    assert np.array_equal(leaves_early(file, images), sure)


@pytest.mark.slow
def test_the_trial_of_an_early_exit_counts_who_leaves_among_all_images_that_decide(
    trained: Trained, context: Context, few: Dataset, bundle: Bundle, tmp_path: Path
) -> None:
    made = apply("exit:at=0.6,threshold=0.5", trained, context)
    exits = export(made, few, tmp_path / "exits", training=False)
    found = run_trial((bundle, None), (exits, None), few, promises=(), margin=0.3, timing="quick")
    images = np.stack([few.images.read(int(i)).transpose(2, 0, 1) for i in context.split(trained).val])
    counted = leaves_early(exits.variant().file, images)
    assert 0 < counted.sum() < len(counted)
    assert found.speed is not None
    assert found.speed.left_early is not None
    assert found.speed.left_early.value == pytest.approx(counted.mean())


def test_a_float_file_without_an_exit_cannot_say_who_leaves(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="not by an early exit"):
        leaves_early(bundle.variant().file, bundle.golden(bundle.variant())[0])


def test_the_threshold_is_the_lowest_that_keeps_the_cost_by_hand() -> None:
    early = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32))
    late = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    labels = np.array([0, 0, 1, 1])
    assert choose_threshold(early, late, labels, cost=0.0) == pytest.approx(0.75)
    assert choose_threshold(early, late, labels, cost=0.25) == pytest.approx(0.65)
    assert choose_threshold(early, late, labels, cost=0.5) == pytest.approx(0.3)


def test_what_stays_in_float_is_named_by_group_or_path(trained: Trained) -> None:
    network = trained.network()
    first, last = layers_kept(network, "first"), layers_kept(network, "last")
    assert layers_kept(network, "first+last") == (*first, *last)
    assert layers_kept(network, "") == ()


def test_a_method_says_what_it_did(trained: Trained, context: Context) -> None:
    events = METHODS["fold"].apply(trained, context, METHODS["fold"].options())
    assert isinstance(next(events), Said)
