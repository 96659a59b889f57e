"""What a study will cost, before it is trained: the pace of each distinct network, over the images of each run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flyweight.data.dataset import Dataset
from flyweight.studies.study import Scale, Study, Trial, recipe_of, tries_of
from flyweight.studies.trial import Place, load_part, of_cost
from flyweight.train.pace import Leg, Pacer, entered, legs
from flyweight.train.prepare import Prepared, prepare
from flyweight.train.recipe import Recipe
from flyweight.train.stages import training_macs


class Predictor:
    """Times what has not been timed yet, arm by arm."""

    def __init__(self, study: Study, scale: Scale, place: Place) -> None:
        self.study, self.scale, self.place = study, scale, place
        self.pacer = Pacer(place.device)
        self._datasets: dict[str, Dataset] = {}
        self._prepared: dict[tuple[Any, ...], Prepared] = {}

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
        return self.pacer.seconds(runs, prepared, self._teacher(trial))

    def macs(self, trial: Trial) -> float:
        """Return the multiply-accumulates of a run's training, those of the arm it starts from included."""
        recipe, prepared = self._made(trial)
        before = self.study.arms[trial.arm].from_arm
        own = sum(leg.images * training_macs(entered(leg).network, _blank(leg)) for leg in legs(recipe, prepared))
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
        return self.pacer.answer(recipe, prepared)


def _blank(leg: Leg) -> Tensor:
    example = leg.stage.architecture.example(2)
    return example.repeat(1, 2, 1, 1) if leg.stage.second_view is not None else example


def _other(trial: Trial, arm: str | None) -> Trial:
    assert arm is not None
    return Trial(trial.seed, trial.dataset, arm)
