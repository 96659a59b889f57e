"""One trial of a study: train one arm on one data set with one seed, score it once, write it down."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import io
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from flyweight.data.audit import leave_out
from flyweight.data.batches import Batches
from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import open_test
from flyweight.data.subset import subset
from flyweight.errors import ExportError, ModelError, RecipeError
from flyweight.export.counted import counted
from flyweight.export.onnx import export_untrained, to_onnx
from flyweight.files import write_bytes, write_json
from flyweight.measure.accuracy import score
from flyweight.measure.convergence import convergence
from flyweight.models.architecture import Architecture, fold
from flyweight.models.weights import load_weights
from flyweight.report.cost import seconds_of
from flyweight.runtime.environment import CPU
from flyweight.studies.study import Scale, Study, Trial, recipe_of, tries_of
from flyweight.train.divergence import Diverged
from flyweight.train.loop import predict_logits
from flyweight.train.pace import total_seconds
from flyweight.train.prepare import Prepared, prepare
from flyweight.train.recipe import DistillPart, Recipe
from flyweight.train.run import HISTORY, architecture_for, train_and_wait
from flyweight.train.stages import form_of, training_macs
from flyweight.train.trained import Trained

RESULT, CORRECT, RUN, TRIES, MODEL, CLAIM = "result.json", "correct.npy", "run", "tries", "model.onnx", "study.json"


@dataclass(frozen=True)
class Place:
    """Where a study runs.

    Attributes:
        data: Folder of the data sets.
        out: The study's own.
        device: What trains, as torch names it. Files are timed on the processor all the same.
    """

    data: Path
    out: Path
    device: str = CPU

    def of(self, trial: Trial) -> Path:
        """Return the folder of a trial."""
        return self.out / "trials" / trial.name

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """Return what a finished trial wrote; None while it is not finished."""
        file = self.of(trial) / RESULT
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    def correct(self, trial: Trial) -> np.ndarray[Any, Any]:
        """Return (N,) bool: which test images a finished trial got right."""
        found: np.ndarray[Any, Any] = np.load(self.of(trial) / CORRECT)
        return found


def claim(study: Study, scale: Scale, place: Place) -> None:
    """Write into the folder what its trials are, or check that it holds trials of the same study and scale.

    Raises:
        RecipeError: It holds others, whose results would be taken for these.
    """
    content = study.model_dump(mode="json", include={"name", "part", "compare", "base", "arms", "datasets"})
    content["scale"] = scale.model_dump(mode="json", exclude={"seeds", "seeds_of", "datasets", "arms"})
    for arm in content["arms"].values():
        del arm["published"]  # what is said of it elsewhere changes no trial
    content = {**_known(content), "device": place.device}
    file = place.out / CLAIM
    if not file.is_file():
        write_json(file, content)
        return
    there = {"device": CPU, **_known(json.loads(file.read_text("utf-8")))}  # older ones know no other
    differ = [key for key in content if _differ(there.get(key), content[key], parts=key in ("arms", "datasets"))]
    if differ:
        raise RecipeError(
            f"{place.out} holds a study that differs in: {', '.join(differ)}",
            do="choose another --out, or empty that folder",
        )


def _differ(there: Any, here: Any, *, parts: bool) -> bool:
    """True where two values differ; of `parts` only those that both have: one more arm changes no finished trial."""
    if not parts or not isinstance(there, dict):
        return bool(there != here)
    both = there.keys() & here.keys()
    return not both or any(there[name] != here[name] for name in both)


def _known(content: Any) -> Any:
    """Return nested mappings less what is None: a field that a later version adds makes no other study."""
    if isinstance(content, dict):
        return {key: _known(value) for key, value in content.items() if value is not None}
    return [_known(value) for value in content] if isinstance(content, list) else content


def run_trial(study: Study, scale: Scale, trial: Trial, place: Place) -> dict[str, Any]:
    """Train, score and write `result.json`; a stopped trial continues, a finished one is read back.

    One that diverges is a result too, without scores: `diverged` says in which epoch, and why.

    Raises:
        DataError: The data set is not below `place.data`.
    """
    done = place.result(trial)
    if done is not None:
        return done
    folder, arm = place.of(trial), study.arms[trial.arm]
    recipe = recipe_of(study, scale, trial)
    dataset = load_part(study, scale, trial, recipe, place)
    prepared = prepare(dataset, recipe)
    before = _result_of(trial, arm.from_arm, place)
    spent = training_only(before) if before else 0.0
    if arm.cost:
        recipe = of_cost(recipe, prepared, training_only(_result_of(trial, arm.cost, place)) - spent)
    start = Trained.load(place.of(_sibling(trial, arm.from_arm)) / RUN) if arm.from_arm else None
    if arm.teacher:
        recipe = _taught(recipe, place.of(_sibling(trial, arm.teacher)) / RUN)
    about = {"dataset": trial.dataset, "arm": trial.arm, "seed": trial.seed, "fingerprint": dataset.fingerprint()}
    about |= {"classes": len(dataset.classes), "train_images": len(prepared.split.train)}
    about |= {"class_names": list(dataset.classes)}
    recipe, effort = _tuned(study, scale, trial, recipe, prepared, place)
    tries_macs = (before or {}).get("tries_macs", 0.0) + sum(one["train_macs"] for one in effort)
    about |= {"tries_macs": tries_macs, "trained_as": _trained_as(study, trial, recipe, place)}
    try:
        trained = train_and_wait(dataset, recipe, folder / RUN, device=place.device, initial=start)
    except Diverged as error:
        lost = {**about, **_diverged(error, folder / RUN), "tuning": effort, "date": _now()}
        lost["train_macs"] += tries_macs
        lost["own_seconds"] = total_seconds([lost["own_seconds"], *(one["split"] for one in effort)])
        write_json(folder / RESULT, lost)
        return lost
    if study.part == "test":
        open_test(place.out / "test-openings.jsonl", why=f"{study.name} {trial.name}")
    logits, labels = answers(trained, prepared, study.part)
    correct = logits.argmax(axis=1) == labels
    buffer = io.BytesIO()
    np.save(buffer, correct)
    write_bytes(folder / CORRECT, buffer.getvalue())
    if study.compare:
        to_onnx(trained.network(), trained.architecture, folder / MODEL)
    found = score(logits, labels, trained.classes)
    file = counted(trained.architecture)
    cost = file.cost
    seconds = trained.metrics["train_seconds"] + (before["train_seconds"] if before else 0.0)
    result = {
        **about,
        "accuracy": found.top1,
        "n": found.n,
        "majority": float(np.bincount(labels).max() / len(labels)),
        "top5": found.top5,
        "balanced": found.balanced,
        "ece": found.ece,
        "recalls": [row.recall for row in found.per_class],
        "val_accuracy": trained.metrics["val_accuracy"],
        "convergence": dataclasses.asdict(convergence(trained.history, trained.metrics)),
        "params": cost.params,
        "macs": cost.macs,
        "macs_by_torch": macs_by_torch(trained.architecture),
        "size_bytes": file.size_bytes,
        "pretrained": _pretrained_on(recipe),
        "tuning": effort,
        "image_passes": _passes(trained) + sum(one["image_passes"] for one in effort),
        "int8_bytes": None if study.compare or study.stability else int8_bytes(trained.architecture),
        "train_macs": spent + tries_macs + trained.metrics["train_macs"],
        "train_seconds": seconds + sum(one["seconds"] for one in effort),
        "own_seconds": total_seconds([seconds_of(trained.history), *(one["split"] for one in effort)]),
        "epochs": len(trained.history),
        "date": _now(),
    }
    write_json(folder / RESULT, result)
    return result


def training_only(result: Mapping[str, Any]) -> float:
    """Return the multiply-accumulates of a result's training without those of its tries.

    An arm whose cost is to be another's is trained as long as that one; what either tried before is beside it. Results
    of older versions never had the tries in.
    """
    return float(result["train_macs"]) - float(result.get("tries_macs", 0.0))


def _trained_as(study: Study, trial: Trial, recipe: Recipe, place: Place) -> str:
    """Return the hash of what decides a training: two trials of one seed with the same are the same training twice."""
    content = recipe.model_dump(mode="json", exclude={"name", "description", "expected", "resolved"})
    arm = study.arms[trial.arm]
    for role, needed in (("from", arm.from_arm), ("teacher", arm.teacher)):
        if needed is not None:
            content[f"{role} arm"] = _result_of(trial, needed, place).get("trained_as", needed)
    if arm.teacher:
        content["distill"]["teacher"] = ""  # a folder of this study
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _diverged(error: Diverged, run: Path) -> dict[str, Any]:
    """Return what is known of a run that diverged: when, why, and what it took."""
    file = run / HISTORY
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    return {
        "diverged": {"epoch": error.epoch, "why": error.what},
        "epochs": len(rows),
        "train_macs": sum(row["train_macs"] for row in rows),
        "train_seconds": sum(row["train_seconds"] for row in rows),
        "own_seconds": seconds_of(rows),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _sibling(trial: Trial, arm: str | None) -> Trial:
    assert arm is not None
    return Trial(trial.seed, trial.dataset, arm)


def _result_of(trial: Trial, arm: str | None, place: Place) -> Any:
    """Return the result of another arm of the same data set and seed; None where `arm` is None."""
    if arm is None:
        return None
    found = place.result(_sibling(trial, arm))
    assert found is not None, f"{arm} runs before {trial.arm}"
    return found


def of_cost(recipe: Recipe, prepared: Prepared, macs: float) -> Recipe:
    """Return a recipe with its one stage as long as its training costs `macs` multiply-accumulates."""
    (stage,) = recipe.stages
    network = form_of(recipe, stage, architecture_for(recipe, prepared)).build()
    pixels = prepared.preprocess
    channels = pixels.channels * (2 if stage.views == "split" else 1)
    example = torch.zeros(2, channels, pixels.image_size, pixels.image_size, dtype=torch.uint8)
    images = macs / training_macs(network, example)
    epochs = max(1, math.ceil(images / (stage.epoch_images or len(prepared.split.train))))
    length = {"epochs": epochs, "epoch_images": max(2, round(images / epochs))}
    return recipe.model_copy(update={"stages": (stage.model_copy(update=length),)})


def _taught(recipe: Recipe, teacher: Path) -> Recipe:
    part = (recipe.distill or DistillPart(teacher="")).model_copy(update={"teacher": str(teacher)})
    return recipe.model_copy(update={"distill": part})


def int8_bytes(architecture: Architecture) -> int | None:
    """Return the bytes of the int8 file of such a network; None where it cannot be quantized in training."""
    quantized = architecture if architecture.quantized else architecture.quantize()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return export_untrained(quantized, Path(folder) / "int8.onnx").stat().st_size
    except (ModelError, ExportError):
        return None


def load_part(study: Study, scale: Scale, trial: Trial, recipe: Recipe, place: Place) -> Dataset:
    """Return a trial's data set, or the part of it that the scale asks for.

    Raises:
        DataError: It cannot be read.
        RecipeError: Finished trials of the folder were run on other images or labels.
    """
    facts = study.datasets[trial.dataset]
    dataset = load_data(facts.source or f"{facts.of or trial.dataset}:{place.data}", group=recipe.data.group)
    dataset = leave_out(dataset, None if facts.quarantine is None else Path(facts.quarantine))
    wanted = scale.subsets.get(trial.dataset, facts.subset)
    if wanted is not None:
        dataset = subset(
            dataset,
            classes=wanted.classes,
            per_class=wanted.per_class,
            fraction=wanted.fraction,
            test_fraction=recipe.data.test_fraction,
            split_seed=recipe.data.split_seed,
        )
    for file in sorted((place.out / "trials" / trial.dataset).glob(f"*/*/{RESULT}")):
        there = json.loads(file.read_text("utf-8")).get("fingerprint")
        if there not in (None, dataset.fingerprint()):
            raise RecipeError(
                f"{file.parent} was run on other images or labels of {trial.dataset} than there are now",
                do="choose another --out, or put the data back as they were",
            )
    return dataset


def _tuned(
    study: Study, scale: Scale, trial: Trial, recipe: Recipe, prepared: Prepared, place: Place
) -> tuple[Recipe, list[dict[str, Any]]]:
    """Run the arm's own search, judged on validation; return the best try's recipe, and what each run was and gave."""
    tune, effort, best, folder = study.arms[trial.arm].tune, [], -1.0, place.of(trial)
    chosen, dataset, images = recipe, prepared.dataset, len(prepared.split.train)
    for number, tried in enumerate(tries_of(study, scale, trial, recipe)):
        assert tune is not None
        short = tried.model_copy(update={"epochs": tune.epochs, "name": f"{recipe.name}, try {number + 1}"})
        found = _try(dataset, short, images, folder / TRIES / str(number), place.device)
        effort.append({"change": tune.tries[number], **found})
        if found["val_accuracy"] is not None and found["val_accuracy"] > best:
            best, chosen = found["val_accuracy"], tried
    return chosen, effort


def _try(dataset: Dataset, short: Recipe, images: int, folder: Path, device: str) -> dict[str, Any]:
    """Train one try; `val_accuracy` is None where it diverged."""
    try:
        trained = train_and_wait(dataset, short, folder, device=device)
    except Diverged as error:
        lost = _diverged(error, folder)
        passes = lost["epochs"] * min(images, short.epoch_images or images)
        cost = {"train_macs": lost["train_macs"], "seconds": lost["train_seconds"], "split": lost["own_seconds"]}
        return {"val_accuracy": None, "image_passes": passes, **cost}
    metrics = trained.metrics
    return {
        "val_accuracy": metrics["val_accuracy"],
        "image_passes": _passes(trained),
        "train_macs": metrics["train_macs"],
        "seconds": metrics["train_seconds"],
        "split": seconds_of(trained.history),
    }


def _passes(trained: Trained) -> int:
    """Return how many training images were seen, each as often as it was."""
    images: int = trained.data["train"]
    recipe = trained.recipe
    each = [stage.epoch_images or recipe.epoch_images or images for stage in recipe.stages]
    each = [each[plan.stage] for plan in recipe.settled().stages] or [recipe.epoch_images or images]
    return sum(min(images, each[int(row["stage"])]) for row in trained.history)


def _pretrained_on(recipe: Recipe) -> str | None:
    return load_weights(recipe.model.pretrained).data if recipe.model.pretrained else None


def macs_by_torch(architecture: Architecture) -> int:
    """Return the multiply-accumulates of one image by torch's own counter: the check on those of the exported graph."""
    network, _ = fold(architecture.build(), architecture)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(architecture.example())
    return int(counter.get_total_flops()) // 2


def answers(
    trained: Trained, prepared: Prepared, part: Literal["test", "val"] = "test"
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return logits (N, K) and labels (N,) of a part."""
    chosen = getattr(prepared.split, part)
    batches = Batches(
        build_fixed(prepared.dataset, chosen, trained.preprocess),
        prepared.dataset.labels[chosen],
        batch_size=256,
        image_size=trained.preprocess.image_size,
        policy=None,
        num_classes=len(trained.classes),
        train=False,
    )
    logits, labels = predict_logits(trained.network(), batches, trained.recipe)
    return logits.numpy(), labels.numpy()
