"""One training run in a folder: prepare, resolve, loop, checkpoint; stop it anywhere and call it again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flyweight.data.batches import Batches
from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.policy import AugmentPolicy
from flyweight.data.split import Split
from flyweight.errors import RecipeError, TrainingError
from flyweight.files import replace_file, write_json
from flyweight.models.architecture import Architecture
from flyweight.models.weights import Initial, fitted, load_weights
from flyweight.runtime.environment import environment
from flyweight.train.checkpoint import checkpoint_stage, load_checkpoint, save_checkpoint
from flyweight.train.distill import find_teachers, load_teacher
from flyweight.train.divergence import Diverged
from flyweight.train.heap import keep_freed_memory
from flyweight.train.linear_probe import fit_head
from flyweight.train.loop import EpochDone, State, StepDone, finish_epoch, train, validate
from flyweight.train.prepare import Prepared, Progress, prepare, split_for
from flyweight.train.probe import resolve
from flyweight.train.recipe import Recipe, load_recipe
from flyweight.train.stages import (
    Stage,
    brought,
    check_stages,
    enter,
    form_of,
    kept_weights,
    plan_stages,
    stages,
    training_macs,
)
from flyweight.train.tensorboard import write_scalars
from flyweight.train.trained import FACTS, RECIPE, Trained

CHECKPOINT, HISTORY, REQUEST, SOURCE = "checkpoint.pt", "history.jsonl", "recipe.yaml", "source.json"
DIVERGED = "diverged.json"
CHECKPOINT_SECONDS = 20.0
FOR_PEOPLE = {"description", "expected", "resolved"}  # fields of a recipe that do not make it another one
TEACHERS = {"distill.teacher", "distill.others"}  # known by their weights, wherever they lie


@dataclass(frozen=True)
class Resolving:
    """The run has its recipe: probed just now, or read back.

    Attributes:
        resumed_at: Epochs done before.
        afresh: Tensors, besides the head's, that start afresh: the weights to begin with have none of their shape.
    """

    recipe: Recipe
    resumed_at: int
    afresh: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The run is complete and saved."""

    trained: Trained


Event = Resolving | StepDone | EpochDone | Finished


def run(
    dataset: Dataset,
    recipe: Recipe,
    out: Path,
    *,
    device: str | None = None,
    parts: Split | None = None,
    initial: Initial | None = None,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Train in the folder `out`, continuing what a stopped run left there, and end with `Finished`.

    Args:
        parts: The split to use; by default the one the recipe asks for.
        initial: Weights to start from, by default those of `recipe.model.pretrained`; what does not fit (another
            number of classes, a tensor made for another image size) starts afresh; `Resolving.afresh` names it.
        progress: Called with (images decoded, images in all) while the cache is built.

    Raises:
        RecipeError: The folder holds a run of another recipe, or one with `model.init` is to begin with weights.
        Diverged: The loss is not finite, or stayed far above its start. The folder keeps its checkpoint and says so in
            `diverged.json`; the next call says it again.
        TrainingError: Memory is too small.
        OutputError: The folder cannot be written.
    """
    out = Path(out)
    for left in out.glob(".*.part"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    if initial is None and recipe.model.pretrained:
        initial = load_weights(recipe.model.pretrained)
        refuse_other_split(initial.trained_on, dataset, recipe, f"model.pretrained {recipe.model.pretrained!r}")
    if initial is not None and recipe.model.init != "default":
        raise RecipeError(
            f"model.init={recipe.model.init} is for weights from scratch, and this run begins with those of another",
            do="leave out --from (or the weights), or --set model.init=default",
        )
    source = _source(dataset, recipe, parts, initial)
    if (out / FACTS).exists() or (out / DIVERGED).exists():
        _same_recipe(recipe, out)
        _same_source(source, out)
        _refuse_diverged(out)
        yield Finished(Trained.load(out))
        return
    check_device(device)
    keep_freed_memory()
    like = initial.architecture if initial else None
    prepared = prepare(dataset, recipe, parts=parts, like=like, progress=progress)
    architecture = architecture_for(recipe, prepared, initial)
    if recipe.distill:
        load_teacher(recipe.distill, prepared.dataset.classes, architecture)
    _claim(recipe, source, out)
    recipe = _resolved(recipe, prepared, architecture, out, device or default_device())
    plan = recipe.settled()
    torch.set_num_threads(plan.threads)
    order = stages(recipe, architecture)
    state = _begin(order, out, initial, plan.device)
    yield Resolving(recipe, len(state.history), state.afresh)
    while True:
        stage = order[state.stage]
        try:
            yield from _loop(state, stage, prepared, out)
        except Diverged as error:
            write_json(out / DIVERGED, {**error.as_dict(), "epoch": error.epoch})
            raise
        if stage is order[-1]:
            break
        state = _next(state, stage, order[stage.index + 1], plan.device)
        save_checkpoint(state, out / CHECKPOINT)
    yield Finished(_finish(state, stage, recipe, prepared, out))


def train_and_wait(dataset: Dataset, recipe: Recipe, out: Path, **options: Any) -> Trained:
    """Run to the end and return the result; see `run`."""
    for event in run(dataset, recipe, out, **options):
        if isinstance(event, Finished):
            return event.trained
    raise AssertionError("a run ends with Finished")


def batches_for(
    prepared: Prepared, recipe: Recipe, second_view: AugmentPolicy | None = None
) -> tuple[Batches, Batches]:
    """Return training and validation batches as the resolved recipe says."""
    plan = recipe.settled()
    classes = len(prepared.dataset.classes)
    weights = _sampling_weights(prepared.train_labels, classes) if plan.sampling else None
    common: dict[str, Any] = {"image_size": plan.image_size, "num_classes": classes, "device": plan.device}
    training = Batches(
        prepared.train_store,
        prepared.train_labels,
        batch_size=recipe.batch_size,
        policy=recipe.augment,
        seed=recipe.seed,
        resident=plan.resident,
        train=True,
        weights=weights,
        second=second_view,
        epoch_images=recipe.epoch_images,
        **common,
    )
    size = min(max(recipe.batch_size, 64), 512)
    validation = Batches(
        prepared.val_store,
        prepared.val_labels,
        batch_size=size,
        policy=None,
        seed=0,
        resident=None,
        train=False,
        **common,
    )
    return training, validation


def architecture_for(recipe: Recipe, prepared: Prepared, initial: Initial | None = None) -> Architecture:
    """Return the architecture the recipe names, for these classes and pixels.

    Raises:
        RecipeError: It is that of the run to begin with, and there is none, or one of other classes or pixels.
    """
    pixels = prepared.preprocess
    if recipe.model.name == "from":
        return _initial_architecture(prepared, initial)
    return Architecture(
        name=recipe.model.name,
        num_classes=len(prepared.dataset.classes),
        in_chans=pixels.channels,
        image_size=pixels.image_size,
        args=dict(recipe.model.args),
        mean=pixels.mean,
        std=pixels.std,
    )


def _initial_architecture(prepared: Prepared, initial: Initial | None) -> Architecture:
    if initial is None:
        raise RecipeError(
            "model.name is 'from', the network of an earlier run, and no run was given",
            do="add --from RUN, the folder of a finished run",
        )
    found, pixels = initial.architecture, prepared.preprocess
    given = (len(prepared.dataset.classes), pixels.channels, pixels.image_size)
    if given != (found.num_classes, found.in_chans, found.image_size):
        raise RecipeError(
            f"the run to begin with has {found.num_classes} classes and {found.in_chans} × {found.image_size} px; "
            f"the data have {given[0]} and {given[1]} × {given[2]} px",
            do=f"give the data it was trained on (--set data.image_size={found.image_size}), or name a network",
        )
    return found


def refuse_other_split(trained_on: Mapping[str, Any], dataset: Dataset, recipe: Recipe, what: str) -> None:
    """Raise RecipeError for weights that were trained on images which this recipe would validate or test on.

    Args:
        trained_on: `fingerprint` and `split` (the rule) of their data; {} where these are not known.
        what: The weights, for people.
    """
    if trained_on.get("fingerprint") != dataset.fingerprint():
        return
    rule, theirs = split_for(dataset, recipe.data).rule, trained_on["split"]
    differ = [key for key, value in rule.items() if theirs.get(key, 0) != value]
    if differ:
        there, here = {key: theirs.get(key, 0) for key in differ}, {key: rule[key] for key in differ}
        raise RecipeError(
            f"{what} was trained on the same images with another split: {there} there, {here} here",
            do="give the data part of its recipe.yaml with --set data.…, or weights trained on other images",
        )


def check_device(device: str | None) -> None:
    """Raise TrainingError when torch cannot use a device of that name."""
    if device is None:
        return
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"torch cannot use the device {device!r}: {str(error).splitlines()[0]}",
            do="choose cpu, or cuda on a machine with an NVIDIA GPU and its driver",
        ) from error


def default_device() -> str:
    """Return cuda where there is a GPU, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _resolved(recipe: Recipe, prepared: Prepared, architecture: Architecture, out: Path, device: str) -> Recipe:
    if (out / RECIPE).exists():
        return load_recipe(out / RECIPE)
    settled = resolved(recipe, prepared, architecture, device)
    settled.save(out / RECIPE)
    return settled


def resolved(recipe: Recipe, prepared: Prepared, architecture: Architecture, device: str) -> Recipe:
    """Return the recipe with what a short probe decides, and its stages counted out; raises as `run`."""
    resident = Batches.fits(prepared.train_store, device)
    draft = recipe.model_copy(update={"resolved": None})
    planned = plan_stages(recipe, architecture)
    check_stages(recipe, architecture)
    if recipe.stages:  # the probe times the form and the views of the first stage
        architecture = form_of(recipe, recipe.stages[0], architecture)
    training = Batches(
        prepared.train_store,
        prepared.train_labels,
        batch_size=recipe.batch_size,
        image_size=prepared.preprocess.image_size,
        policy=recipe.augment,
        second=recipe.second_view if recipe.stages and recipe.stages[0].views == "split" else None,
        num_classes=len(prepared.dataset.classes),
        seed=recipe.seed,
        device=device,
        resident=False,
        train=True,
    )
    sample = next(iter(training.epoch(0)))

    def build() -> nn.Module:
        torch.manual_seed(recipe.seed)
        return architecture.build().train()

    settled = resolve(draft, prepared, build, sample, device=device, resident=resident)
    return settled.model_copy(update={"resolved": settled.settled().model_copy(update={"stages": planned})})


def _begin(order: list[Stage], out: Path, initial: Initial | None, device: str) -> State:
    """Return the state in which the run stands: that of its checkpoint, or the first stage's."""
    if not (out / CHECKPOINT).exists():
        first = order[0]
        weights = (
            brought(fitted(initial, first.architecture), initial.architecture, first.architecture) if initial else None
        )
        return enter(first, weights, device=device)
    index = checkpoint_stage(out / CHECKPOINT)
    if index >= len(order):
        raise TrainingError(
            f"{out / CHECKPOINT} is in stage {index + 1} of {len(order)}", do="start again in an empty folder"
        )
    state = enter(order[index], None, device=device)
    load_checkpoint(state, out / CHECKPOINT, device)
    return state


def _next(state: State, stage: Stage, after: Stage, device: str) -> State:
    """Return the state in which the next stage begins, with the weights this one keeps and the history so far."""
    weights, _ = kept_weights(state, stage.recipe)
    on_cpu = {name: value.cpu() for name, value in weights.items()}
    following = enter(after, brought(on_cpu, stage.architecture, after.architecture), device=device)
    following.history, following.afresh = state.history, state.afresh
    return following


def _loop(state: State, stage: Stage, prepared: Prepared, out: Path) -> Iterator[Event]:
    if stage.probe:
        yield _probed(state, stage, prepared, out)
        return
    training, validation = batches_for(prepared, stage.recipe, stage.second_view)
    images, _ = next(iter(training.epoch(0)))
    state.macs_per_image = training_macs(state.network, images[:2])
    saved = time.monotonic()
    for event in train(state, stage.recipe, training, validation):
        if isinstance(event, EpochDone):
            _log(state, out)
        due = isinstance(event, EpochDone) or time.monotonic() - saved > CHECKPOINT_SECONDS
        if due and bool(torch.isfinite(state.loss_sum)):  # NaN never replaces a good checkpoint
            save_checkpoint(state, out / CHECKPOINT)
            saved = time.monotonic()
        yield event


def _probed(state: State, stage: Stage, prepared: Prepared, out: Path) -> EpochDone:
    """Fit the head once; a run that was stopped after it has it in its checkpoint."""
    if state.epoch > 0:
        return EpochDone(state.history[-1])
    device, chosen = stage.recipe.settled().device, prepared.split.train
    _, validation = batches_for(prepared, stage.recipe)
    example = stage.architecture.example().to(device)
    row = fit_head(state.network, _unchanged(prepared, chosen, device), validation, example)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        state.network(example)
    macs = counter.get_total_flops() / 2 * len(chosen)
    finish_epoch(
        state, stage.recipe, {"epoch": len(state.history) + 1, "stage": state.stage, "train_macs": macs, **row}
    )
    _log(state, out)
    save_checkpoint(state, out / CHECKPOINT)
    return EpochDone(state.history[-1])


def _refuse_diverged(out: Path) -> None:
    """Raise what ended an earlier call in this folder."""
    if (out / DIVERGED).exists():
        there = json.loads((out / DIVERGED).read_text("utf-8"))
        again = f"delete {out / DIVERGED} to go on from the last checkpoint all the same"
        raise Diverged(there["what"], do=f"{there['do']}; {again}", more=there["more"], epoch=there["epoch"])


def _log(state: State, out: Path) -> None:
    """Rewrite the history whole: a resumed run neither repeats nor loses a row."""
    with replace_file(out / HISTORY, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in state.history)


def _finish(state: State, stage: Stage, recipe: Recipe, prepared: Prepared, out: Path) -> Trained:
    weights, place = kept_weights(state, stage.recipe)
    row = state.history[place]
    trained = Trained(
        architecture=stage.architecture,
        weights={name: value.detach().cpu() for name, value in weights.items()},
        recipe=recipe,
        classes=prepared.dataset.classes,
        preprocess=prepared.preprocess,
        split=prepared.split.rule,
        data=data_facts(prepared.dataset, prepared.split),
        history=tuple(state.history),
        metrics={
            "val_accuracy": row["val_accuracy"],
            "val_loss": row["val_loss"],
            "val_n": len(prepared.split.val),
            **_on_training_images(weights, stage, prepared),
            "train_macs": sum(row["train_macs"] for row in state.history),
            "train_seconds": sum(row["train_seconds"] for row in state.history),
        },
        environment=environment(),
    )
    write_scalars(trained.history, out / "tensorboard")
    trained.save(out)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return trained


def _on_training_images(weights: Mapping[str, torch.Tensor], stage: Stage, prepared: Prepared) -> dict[str, float]:
    """Return the accuracy on training images as they are, not augmented: as many as validate, evenly spaced."""
    chosen, device = prepared.split.train, stage.recipe.settled().device
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), len(prepared.split.val))).astype(int)]
    network = stage.architecture.build()
    network.load_state_dict(dict(weights))
    found = validate(network.to(device), _unchanged(prepared, chosen, device), stage.recipe)
    return {"train_accuracy": found["val_accuracy"], "train_n": len(chosen)}


def _unchanged(prepared: Prepared, chosen: np.ndarray[Any, Any], device: str) -> Batches:
    """Return images of a data set in order, complete and not augmented."""
    return Batches(
        build_fixed(prepared.dataset, chosen, prepared.preprocess),
        prepared.dataset.labels[chosen],
        batch_size=256,
        image_size=prepared.preprocess.image_size,
        policy=None,
        num_classes=len(prepared.dataset.classes),
        device=device,
        train=False,
    )


def data_facts(dataset: Dataset, parts: Split) -> dict[str, Any]:
    """Return what identifies the data: name, fingerprint, counts per part, images left out."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint(),
        "train": len(parts.train),
        "val": len(parts.val),
        "test": len(parts.test),
        "quarantined": len(dataset.quarantined),
    }


def _sampling_weights(labels: np.ndarray[Any, Any], classes: int) -> np.ndarray[Any, Any]:
    counts = np.bincount(labels, minlength=classes)
    weights: np.ndarray[Any, Any] = 1.0 / counts[labels]
    return weights


def _claim(recipe: Recipe, source: dict[str, Any], out: Path) -> None:
    """Write the requested recipe and what it trains on, or check that the folder is a run of both."""
    if (out / REQUEST).exists():
        _same_recipe(recipe, out)
        _same_source(source, out)
        return
    write_json(out / SOURCE, source)
    recipe.save(out / REQUEST)
    write_json(out / "environment.json", environment())


def _source(dataset: Dataset, recipe: Recipe, parts: Split | None, initial: Initial | None) -> dict[str, Any]:
    """Return what a run learns from besides its recipe: data, split where one is given, first weights, teacher."""
    rows = None if parts is None else [hashed(part.tobytes()) for part in (parts.train, parts.val)]
    found: dict[str, Any] = {
        "data": dataset.fingerprint(),
        "name": dataset.name,
        "split": rows,
        "initial": _weights_hash(initial),
    }
    if recipe.distill:
        hashes = [_weights_hash(one) for one in find_teachers(recipe.distill)]
        found["teacher"] = hashes[0] if len(hashes) == 1 else hashes
    return found


def _weights_hash(trained: Initial | None) -> str | None:
    if trained is None:
        return None
    ordered = sorted(trained.weights.items())
    return hashed(b"".join(name.encode() + value.numpy().tobytes() for name, value in ordered))


def hashed(content: bytes) -> str:
    """Return a short hash of bytes."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _same_source(source: dict[str, Any], out: Path) -> None:
    if not (out / SOURCE).exists():  # a run of an earlier version
        return
    there = json.loads((out / SOURCE).read_text("utf-8"))
    words = {"data": "other images or labels", "split": "another split", "initial": "other weights to begin with"}
    words["teacher"] = "another teacher"
    differ = [words[key] for key in words if there.get(key) != source.get(key)]
    if differ:
        raise RecipeError(
            f"{out} holds a run of {there.get('name')!r} with {', '.join(differ)} than {source['name']!r} now",
            do="choose another --out, or empty that folder to start again",
        )


def _same_recipe(recipe: Recipe, out: Path) -> None:
    there = load_recipe(out / REQUEST)
    mine, theirs = recipe.model_dump(), there.model_dump()
    changed = [(line.split(" ")[0], line) for line in _differences(theirs, mine)]
    # Teachers are compared in `_source`.
    differ = [line for key, line in changed if key.split(".")[0] not in FOR_PEOPLE and key not in TEACHERS]
    if differ:
        raise RecipeError(
            f"{out} holds a run of another recipe: {'; '.join(differ)}",
            do="choose another --out, or empty that folder to start again",
        )


def _differences(there: dict[str, Any], here: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield "optim.lr is 0.1 there and 0.03 here" for each value that differs."""
    for key in {**here, **there}:
        if isinstance(here.get(key), dict) and isinstance(there.get(key), dict):
            yield from _differences(there[key], here[key], f"{above}{key}.")
        elif here.get(key) != there.get(key):
            yield f"{above}{key} is {there.get(key)!r} there and {here.get(key)!r} here"
