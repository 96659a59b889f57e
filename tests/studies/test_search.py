"""A search is a study on validation images: nothing in it opens the test part, and its limits are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.studies.small import small_mnist

from flyweight.models.architecture import Architecture
from flyweight.studies.analyse import analyse
from flyweight.studies.schedule import TrialFailed, run_trials
from flyweight.studies.study import Scale, Study, load_study, recipe_of, trials
from flyweight.studies.trial import RUN, Place, int8_bytes
from flyweight.train.trained import Trained

LIMITS = {"fashion-mnist": (14_862, 1, 28), "cifar10": (19_622, 3, 32)}


@pytest.fixture(scope="module")
def family() -> Study:
    return load_study("tiny_family")


def test_every_network_but_the_teacher_is_within_its_limit_of_parameters(family: Study) -> None:
    for trial in trials(family, family.scales["smoke"], datasets=list(LIMITS)):
        recipe = recipe_of(family, family.scales["smoke"], trial)
        limit, channels, side = LIMITS[trial.dataset]
        network = Architecture(recipe.model.name, 10, channels, side, dict(recipe.model.args)).build()
        within = sum(parameter.numel() for parameter in network.parameters()) <= limit
        assert within == (trial.arm != "teacher"), trial.name


def test_what_ships_is_under_30_kilobytes_as_int8(family: Study) -> None:
    for name, (_, channels, side) in LIMITS.items():
        wide = family.datasets[name].model_extra or {}
        size = int8_bytes(Architecture("tiny_sep_32", 10, channels, side, wide["wide"]))
        assert size is not None
        assert size < 30_000


def test_a_search_teaches_compares_on_validation_and_opens_no_test_part(family: Study, tmp_path: Path) -> None:
    small_mnist(tmp_path / "data")
    (tmp_path / "data" / "MNIST").rename(tmp_path / "data" / "FashionMNIST")
    order = trials(family, family.scales["smoke"], arms=["taught"])
    assert [trial.arm for trial in order] == ["teacher", "taught"]
    place = Place(tmp_path / "data", tmp_path / "out")
    scale: Scale = family.scales["smoke"]
    events = list(run_trials(family, scale, order, place, jobs=1))
    assert not [event for event in events if isinstance(event, TrialFailed)]
    assert not (tmp_path / "out" / "test-openings.jsonl").exists()
    taught = Trained.load(place.of(order[-1]) / RUN)
    assert taught.recipe.distill is not None
    assert taught.recipe.distill.teacher == str(place.of(order[0]) / RUN)
    facts = analyse(family, "smoke", order, place)
    assert facts.part == "val"
    assert facts.datasets[0].published is None
    assert facts.datasets[0].test_images == json.loads((place.of(order[0]) / "result.json").read_text())["n"]
    assert all(arm.int8_bytes for arm in facts.datasets[0].arms)
