"""What a training will take, before it is trained: a few timed steps of its network on its batches.

Every distinct network is built once for each way of training (batch, optimizer, frozen layers) and makes some passes
over real batches, about two seconds of them, on one thread or on the GPU; making batches and answering validation
images are timed apart. Per image that is multiplied by the images of a run. Time is the processor's, so that other work
on the machine is not in it, and how much of a core there was is told beside it; with a GPU it is the clock's. Early
stopping is not foreseen: a run with patience may be shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flyweight.data.batches import Batches
from flyweight.runtime.environment import CPU, is_cpu
from flyweight.train.heap import keep_freed_memory
from flyweight.train.loop import Stepper
from flyweight.train.prepare import Prepared
from flyweight.train.probe import planned
from flyweight.train.recipe import Recipe
from flyweight.train.run import architecture_for, batches_for
from flyweight.train.stages import Stage, enter, plan_stages, stages

SECONDS = ("loading", "computing", "validating")  # what the seconds of training went in
CORE = "core"  # how many there were of the processor
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
    """Seconds of the processor, and how much of a core there was for them; on a GPU those until it is idle."""

    def __init__(self, device: str = CPU) -> None:
        self.device = device
        self.core, self.wall = 0.0, 0.0

    def now(self) -> float:
        """Return seconds of the processor, or with a GPU of the clock, once the GPU is idle."""
        if is_cpu(self.device):
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def share(self) -> float:
        """Share of a core that the timed calls got; 1 where nothing was timed."""
        return min(1.0, self.core / self.wall) if self.wall else 1.0

    def mean(self, call: Callable[[], int], most: float = ENOUGH_SECONDS) -> float:
        """Return the mean core-seconds of one thing; a call does as many as it returns."""
        spent, things = 0.0, 0
        for _ in range(REPEATS):
            wall, core = time.perf_counter(), self.now()
            things += call()
            taken = self.now() - core
            self.core, self.wall, spent = self.core + taken, self.wall + time.perf_counter() - wall, spent + taken
            if spent > most:
                break
        return spent / things


class Pacer:
    """Times what has not been timed yet, training by training, on the device that trains."""

    def __init__(self, device: str = CPU) -> None:
        assert torch.get_num_threads() == 1, "as runs of a study are"
        keep_freed_memory()  # as training does
        self.clock = Clock(device)
        self._paces: dict[str, Pace] = {}
        self._loads: dict[str, float] = {}

    def seconds(self, recipes: Iterable[Recipe], prepared: Prepared, teaching: float = 0.0) -> dict[str, float]:
        """Return the seconds of trainings on the same data, by what they go in; those of the core where that trains.

        Args:
            teaching: Seconds of a teacher's answer to one image.

        Raises:
            FlyweightError: A network cannot be built.
        """
        total = total_seconds(
            self._leg(leg, prepared, teaching)
            for recipe in recipes
            for leg in legs(recipe, prepared, self.clock.device)
        )
        return {**total, CORE: sum(total[key] for key in SECONDS) if is_cpu(self.clock.device) else 0.0}

    def answer(self, recipe: Recipe, prepared: Prepared) -> float:
        """Return the seconds in which the network that a recipe ends with answers one image."""
        return self._pace(legs(recipe, prepared, self.clock.device)[-1], prepared).answer

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
            device = self.clock.device
            self._paces[key] = _timed_pace(leg, images.to(device), targets.to(device), self.clock)
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


def total_seconds(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sums of several such seconds; those of the processor are 0 where they are not known."""
    found = dict.fromkeys((*SECONDS, CORE), 0.0)
    for part in parts:
        found = {key: found[key] + part.get(key, 0.0) for key in found}
    return found


def legs(recipe: Recipe, prepared: Prepared, device: str = CPU) -> list[Leg]:
    """Return the stages of a run with their numbers of images, as they would be run here on that device."""
    architecture = architecture_for(recipe, prepared)
    resident = Batches.fits(prepared.train_store, device)
    plan = planned(recipe, prepared, device=device, resident=resident)
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


def entered(leg: Leg) -> Any:
    """Return the state that a stage begins with: its network as built, and its optimizer."""
    return enter(leg.stage, None, device=leg.stage.recipe.settled().device)


def _batches(leg: Leg, prepared: Prepared) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield training batches, epoch after epoch."""
    training, _ = batches_for(prepared, leg.stage.recipe, leg.stage.second_view)
    epoch = 0
    while True:
        yield from training.epoch(epoch)
        epoch += 1


def _timed_pace(leg: Leg, images: Tensor, targets: Tensor, clock: Clock) -> Pace:
    state = entered(leg)
    stepper = Stepper(state, leg.stage.recipe)
    if leg.stage.probe:
        return Pace(0.0, _answer(state.judged, images, clock), 0.0)
    count = min(SMALL, len(images))
    stepper.passes(images[:count], targets[:count])  # allocates
    started = clock.now()
    stepper.passes(images[:count], targets[:count])
    each = (clock.now() - started) / count
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
