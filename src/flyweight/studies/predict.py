"""What a study will cost, before it is trained: a few timed steps of each distinct network and way of training it.

Every distinct network is built once for each way of training (batch, optimizer, frozen layers) and makes some passes
over real batches, about two seconds of them, on one thread; making batches and answering validation images are timed
apart. Per image that is multiplied by the images of each run. Time is the processor's, so that other work on the
machine is not in it, and how much of a core there was is told beside it. Early stopping is not foreseen: a run with
patience may be shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flyweight.data.batches import Batches
from flyweight.data.dataset import Dataset
from flyweight.studies.study import Scale, Study, Trial, recipe_of, tries_of
from flyweight.studies.trial import CORE, SECONDS, Place, load_part, of_cost, total_seconds
from flyweight.train.heap import keep_freed_memory
from flyweight.train.loop import Stepper
from flyweight.train.prepare import Prepared, prepare
from flyweight.train.probe import planned
from flyweight.train.recipe import Recipe
from flyweight.train.run import architecture_for, batches_for
from flyweight.train.stages import Stage, enter, plan_stages, stages, training_macs

SMALL = 8  # images of the first pass, which tells how many the timed ones may take
ENOUGH_SECONDS = 1.0  # of timed passes
REPEATS = 5


@dataclass(frozen=True)
class Leg:
    """One stage of a run: its images, each as often as it is seen, its epochs and the images that validate each."""

    stage: Stage
    images: int
    epochs: int
    val_images: int


@dataclass(frozen=True)
class Pace:
    """Seconds on one thread: of an image's forward and backward pass, of its answer alone, and of an optimizer step."""

    passes: float
    answer: float
    step: float


class Clock:
    """Seconds of the processor, and how much of a core there was for them."""

    def __init__(self) -> None:
        self.core, self.wall = 0.0, 0.0

    @property
    def share(self) -> float:
        """Share of a core that the timed calls got; 1 where nothing was timed."""
        return min(1.0, self.core / self.wall) if self.wall else 1.0

    def mean(self, call: Callable[[], int], most: float = ENOUGH_SECONDS) -> float:
        """Return the mean core-seconds of one thing; a call does as many as it returns."""
        spent, things = 0.0, 0
        for _ in range(REPEATS):
            wall, core = time.perf_counter(), time.process_time()
            things += call()
            taken = time.process_time() - core
            self.core, self.wall, spent = self.core + taken, self.wall + time.perf_counter() - wall, spent + taken
            if spent > most:
                break
        return spent / things


class Predictor:
    """Times what has not been timed yet, arm by arm."""

    def __init__(self, study: Study, scale: Scale, place: Place) -> None:
        assert torch.get_num_threads() == 1, "as runs of a study are"
        keep_freed_memory()  # as training does
        self.study, self.scale, self.place = study, scale, place
        self.clock = Clock()
        self._datasets: dict[str, Dataset] = {}
        self._prepared: dict[tuple[Any, ...], Prepared] = {}
        self._paces: dict[str, Pace] = {}
        self._loads: dict[str, float] = {}

    def seconds(self, trial: Trial) -> dict[str, float]:
        """Return the seconds of a run on one thread, its own search included, by what they go in.

        Raises:
            FlyweightError: Its data cannot be read, or its network cannot be built.
        """
        recipe, prepared = self._made(trial)
        tune = self.study.arms[trial.arm].tune
        runs = [recipe]
        for tried in tries_of(self.study, self.scale, trial, recipe):
            assert tune is not None
            runs.append(tried.model_copy(update={"epochs": tune.epochs}))
        teaching = self._teacher(trial)
        total = total_seconds(self._leg(leg, prepared, teaching) for run in runs for leg in legs(run, prepared))
        return {**total, CORE: sum(total[key] for key in SECONDS)}

    def macs(self, trial: Trial) -> float:
        """Return the multiply-accumulates of a run's training, those of the arm it starts from included."""
        recipe, prepared = self._made(trial)
        before = self.study.arms[trial.arm].from_arm
        own = sum(leg.images * training_macs(_enter(leg).network, _blank(leg)) for leg in legs(recipe, prepared))
        return own + (self.macs(_other(trial, before)) if before else 0.0)

    def _made(self, trial: Trial) -> tuple[Recipe, Prepared]:
        """Return a run's recipe, with the length that its cost gives it, and its data."""
        arm = self.study.arms[trial.arm]
        recipe = recipe_of(self.study, self.scale, trial).model_copy(update={"distill": None})
        prepared = self._data(trial, recipe)
        if arm.cost:
            spent = self.macs(_other(trial, arm.from_arm)) if arm.from_arm else 0.0
            recipe = of_cost(recipe, prepared, self.macs(_other(trial, arm.cost)) - spent)
        return recipe, prepared

    def _data(self, trial: Trial, recipe: Recipe) -> Prepared:
        if trial.dataset not in self._datasets:
            self._datasets[trial.dataset] = load_part(self.study, self.scale, trial, recipe, self.place)
        key = (trial.dataset, recipe.data.model_dump_json(), recipe.augment.random_resized_crop is None)
        if key not in self._prepared:
            self._prepared[key] = prepare(self._datasets[trial.dataset], recipe)
        return self._prepared[key]

    def _teacher(self, trial: Trial) -> float:
        """Return the seconds of a teacher's answer to one image; 0 where there is none."""
        name = self.study.arms[trial.arm].teacher
        if name is None:
            return 0.0
        recipe, prepared = self._made(_other(trial, name))
        return self._pace(legs(recipe, prepared)[-1], prepared).answer

    def _leg(self, leg: Leg, prepared: Prepared, teaching: float) -> dict[str, float]:
        pace = self._pace(leg, prepared)
        validate = pace.answer * leg.val_images * leg.epochs
        if leg.stage.probe:  # each image once through the network, without augmentation
            return {"loading": 0.0, "computing": pace.answer * leg.images, "validating": validate}
        each = pace.passes + pace.step / leg.stage.recipe.batch_size + teaching
        return {
            "loading": leg.images * self._load(leg, prepared),
            "computing": leg.images * each,
            "validating": validate,
        }

    def _pace(self, leg: Leg, prepared: Prepared) -> Pace:
        stage, recipe = leg.stage, leg.stage.recipe
        built = stage.architecture.to_json()
        same = {key: built[key] for key in built if key not in ("mean", "std")}
        way = (recipe.optim.name, bool(recipe.ema_decay), bool(recipe.clip_grad_norm), recipe.batch_size)
        key = json.dumps([same, stage.layers, stage.second_view is not None, *way])
        if key not in self._paces:
            images, targets = next(_batches(leg, prepared))
            self._paces[key] = _timed_pace(leg, images, targets, self.clock)
        return self._paces[key]

    def _load(self, leg: Leg, prepared: Prepared) -> float:
        """Return the seconds in which one image's share of a batch is made."""
        recipe, second = leg.stage.recipe, leg.stage.second_view
        views = [recipe.augment.model_dump_json(), second.model_dump_json() if second else ""]
        size, data = prepared.preprocess.image_size, prepared.dataset.fingerprint()
        key = json.dumps([data, size, recipe.batch_size, prepared.shape_policy, *views])
        if key not in self._loads:
            batches = _batches(leg, prepared)
            next(batches)  # the first also opens the store
            self._loads[key] = self.clock.mean(lambda: len(next(batches)[0]))
        return self._loads[key]


def legs(recipe: Recipe, prepared: Prepared) -> list[Leg]:
    """Return the stages of a run with their numbers of images, as they would be run here."""
    architecture = architecture_for(recipe, prepared)
    resident = Batches.fits(prepared.train_store, "cpu")
    plan = planned(recipe, prepared, device="cpu", resident=resident)
    plan = plan.model_copy(update={"stages": plan_stages(recipe, architecture)})
    all_images, val_images = len(prepared.split.train), len(prepared.split.val)
    return [
        Leg(
            stage,
            stage.recipe.epochs * min(all_images, stage.recipe.epoch_images or all_images),
            stage.recipe.epochs,
            val_images,
        )
        for stage in stages(recipe.model_copy(update={"resolved": plan}), architecture)
    ]


def _enter(leg: Leg) -> Any:
    return enter(leg.stage, None, device="cpu")


def _blank(leg: Leg) -> Tensor:
    example = leg.stage.architecture.example(2)
    return example.repeat(1, 2, 1, 1) if leg.stage.second_view is not None else example


def _other(trial: Trial, arm: str | None) -> Trial:
    assert arm is not None
    return Trial(trial.seed, trial.dataset, arm)


def _batches(leg: Leg, prepared: Prepared) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield training batches, epoch after epoch."""
    training, _ = batches_for(prepared, leg.stage.recipe, leg.stage.second_view)
    epoch = 0
    while True:
        yield from training.epoch(epoch)
        epoch += 1


def _timed_pace(leg: Leg, images: Tensor, targets: Tensor, clock: Clock) -> Pace:
    state = _enter(leg)
    stepper = Stepper(state, leg.stage.recipe)
    if leg.stage.probe:
        return Pace(0.0, _answer(state.judged, images, clock), 0.0)
    count = min(SMALL, len(images))
    stepper.passes(images[:count], targets[:count])  # allocates
    started = time.process_time()
    stepper.passes(images[:count], targets[:count])
    each = (time.process_time() - started) / count
    count = max(count, min(len(images), round(ENOUGH_SECONDS / 2 / each)))

    def passes() -> int:
        stepper.passes(images[:count], targets[:count])
        return count

    passes()  # this number of images for the first time
    found = clock.mean(passes)
    for group in state.optimizer.param_groups:
        group["lr"] = 0.0
    stepper.update()  # allocates the optimizer's state

    def step() -> int:
        stepper.update()
        return 1

    taken = clock.mean(step, most=ENOUGH_SECONDS / 4)
    return Pace(found, _answer(state.judged, images[:count], clock), taken)


def _answer(network: torch.nn.Module, images: Tensor, clock: Clock) -> float:
    network.eval()

    def answer() -> int:
        with torch.inference_mode():
            network(images)
        return len(images)

    answer()
    return clock.mean(answer, most=ENOUGH_SECONDS / 4)
