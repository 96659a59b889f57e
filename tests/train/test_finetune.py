"""Going on from weights: the head fitted alone, blocks at rates that fall towards the stem, other classes, channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from flyweight.cli import run as cli
from flyweight.cli.progress import afresh_line
from flyweight.data.dataset import Dataset
from flyweight.errors import RecipeError
from flyweight.models.architecture import Architecture
from flyweight.models.layers import blocks
from flyweight.models.weights import Weights, cache_folder
from flyweight.train.linear_probe import PENALTIES
from flyweight.train.loop import EpochDone
from flyweight.train.optim import make_optimizer
from flyweight.train.prepare import prepare
from flyweight.train.recipe import OptimPart, Recipe
from flyweight.train.run import Resolving, run, train_and_wait
from flyweight.train.stages import take_weights
from flyweight.train.trained import Trained

DEPTH = 1 + 12 + 1
PROBE = {"stages": [{"probe": True}]}


def with_parts(recipe: Recipe, **parts: object) -> Recipe:
    return Recipe.model_validate({**recipe.model_dump(mode="json"), **parts})


@pytest.fixture(scope="module")
def source(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    recipe = Recipe(
        model={"name": "tiny_cnn_8"},
        epochs=3,
        batch_size=64,
        precision="fp32",
        channels_last=True,
        compile=False,
        threads=1,
    )
    return train_and_wait(few, recipe, tmp_path_factory.mktemp("source"))


def test_a_probe_changes_the_head_alone_and_finds_what_logistic_regression_finds(
    source: Trained, few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    recipe = with_parts(quick, model={"name": "tiny_cnn_8"}, **PROBE)
    probed = train_and_wait(few, recipe, tmp_path, initial=source)
    changed = {name for name in probed.weights if not torch.equal(probed.weights[name], source.weights[name])}
    assert changed == {"net.6.weight", "net.6.bias"}

    prepared = prepare(few, recipe)
    trunk = torch.nn.Sequential(*list(source.network().children())[:1], *list(source.network().net.children())[:-1])
    features = {}
    for part in ("train", "val"):
        chosen = getattr(prepared.split, part)
        images = torch.stack([torch.from_numpy(few.images.read(int(i))).permute(2, 0, 1) for i in chosen])
        with torch.no_grad():
            features[part] = (trunk.eval()(images).numpy(), few.labels[chosen])
    (x, y), (seen, wanted) = features["train"], features["val"]
    mean, std = x.mean(0), x.std(0) + 1e-6
    penalty = probed.history[0]["penalty"]
    assert penalty in PENALTIES
    theirs = LogisticRegression(C=1 / (penalty * len(y)), max_iter=2000).fit((x - mean) / std, y)
    assert probed.metrics["val_accuracy"] == pytest.approx(theirs.score((seen - mean) / std, wanted), abs=0.02)


def test_a_probe_then_all_of_it_starts_from_the_fitted_head(
    source: Trained, few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    stages = [{"probe": True}, {"epochs": 2, "optim": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.0}}]
    recipe = with_parts(quick, model={"name": "tiny_cnn_8"}, stages=stages)
    found = train_and_wait(few, recipe, tmp_path, initial=source)
    assert [row["stage"] for row in found.history] == [0, 1, 1]
    assert found.history[1]["val_accuracy"] > found.history[0]["val_accuracy"] - 0.05


def test_blocks_learn_at_rates_that_fall_towards_the_stem() -> None:
    network = Architecture("mobilenetv3_small_050", 10).build()
    optimizer = make_optimizer(network, OptimPart(name="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5))
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(network.named_parameters())
    assert len(scale) == len(parameters)
    assert scale[id(parameters["net.classifier.weight"])] == 1.0
    # By hand: stem, 1 + 2 + 3 + 2 + 3 + 1 blocks, the head's convolution, the classifier.
    assert scale[id(parameters["net.conv_stem.weight"])] == pytest.approx(0.5**DEPTH)
    assert scale[id(parameters["net.bn1.weight"])] == pytest.approx(0.5**DEPTH)
    assert (
        scale[id(parameters["net.blocks.1.0.conv_pw.weight"])]
        == 2 * scale[id(parameters["net.blocks.0.0.conv_dw.weight"])]
    )
    assert decay[id(parameters["net.bn1.weight"])] == 0.0
    assert decay[id(parameters["net.conv_stem.weight"])] == 0.1


def test_a_layer_and_its_norm_are_one_block() -> None:
    found = blocks(Architecture("tiny_cnn_4", 10).build())
    assert [names[0] for names in found] == [
        "net.0.0.weight", "net.1.0.weight", "net.2.0.weight", "net.3.0.weight", "net.6.weight",
    ]  # fmt: skip


def test_weights_that_saw_other_parts_of_the_same_images_are_refused(
    source: Trained, few: Dataset, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    run_folder = tmp_path / "source"
    source.save(run_folder)
    assert cli(["weights", "add", "own/few", str(run_folder)]) == 0
    part = {"model": {"name": "tiny_cnn_8", "pretrained": "own/few"}, **PROBE}
    train_and_wait(few, with_parts(quick, **part), tmp_path / "same")
    with pytest.raises(RecipeError, match="another split"):
        train_and_wait(few, with_parts(quick, **part, data={"split_seed": 1}), tmp_path / "other")


def test_pretrained_weights_of_colour_images_begin_a_run_on_grey_ones_with_other_classes(
    few: Dataset, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(5)
    architecture = Architecture("tiny_cnn_8", 7, 3, 32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))
    state = architecture.build().state_dict()
    Weights("own/colour", architecture, state, "CC0-1.0", "a test", "noise").save(cache_folder() / "own/colour")
    recipe = with_parts(quick, model={"name": "tiny_cnn_8", "pretrained": "own/colour"}, **PROBE)
    found = train_and_wait(few, recipe, tmp_path / "run")
    assert found.architecture.mean == pytest.approx((0.5,))
    assert found.preprocess.mean == found.architecture.mean
    assert torch.allclose(found.weights["net.0.0.weight"], state["net.0.0.weight"].sum(1, keepdim=True))
    assert found.weights["net.6.weight"].shape[0] == 10


def test_a_probe_of_a_network_without_a_dense_head_is_refused(few: Dataset, quick: Recipe, tmp_path: Path) -> None:
    recipe = with_parts(quick, model={"name": "squeezenet1_1"}, **PROBE)
    with pytest.raises(RecipeError, match="probe fits a dense last layer") as caught:
        train_and_wait(few.take(np.arange(0, 800, 4)), recipe, tmp_path)
    assert "--recipe unfreeze" in caught.value.do


def test_what_starts_afresh_besides_the_head_is_said_also_when_the_run_goes_on(
    few: Dataset, quick: Recipe, tmp_path: Path
) -> None:
    architecture = Architecture("tiny_cnn_8", 7, 1, 28)
    state = architecture.build().state_dict()
    recipe = with_parts(quick, model={"name": "tiny_cnn_8"})
    for name, weights, afresh in (
        ("whole", state, ()),
        ("part", {**state, "net.0.0.weight": torch.zeros(5, 1, 3, 3)}, ("net.0.0.weight",)),
    ):
        begun = Weights("own/net", architecture, weights, "", "a test", "noise")
        for made in range(2):
            events = run(few, recipe, tmp_path / name, initial=begun)
            first = next(events)
            assert isinstance(first, Resolving)
            assert first.afresh == afresh
            assert first.resumed_at == made
            next(event for event in events if isinstance(event, EpochDone))
            events.close()
    assert afresh_line(afresh).startswith("1 tensor besides the head starts afresh, the first: net.0.0.weight")


def test_attention_biases_made_for_another_image_size_start_afresh() -> None:
    network = Architecture("efficientvit_m0", 10, 3, 64).build()
    given = {
        name: value + 1 for name, value in Architecture("efficientvit_m0", 10, 3, 224).build().state_dict().items()
    }
    afresh = take_weights(network, given)
    assert afresh
    assert all(name.endswith("attention_biases") for name in afresh)
    assert all(given[name].shape != network.state_dict()[name].shape for name in afresh)


def test_a_probe_of_a_quantized_network_is_refused() -> None:
    with pytest.raises(ValueError, match="probe fits the head of a single float network"):
        Recipe(stages=[{"probe": True, "quantize": "int8"}])
