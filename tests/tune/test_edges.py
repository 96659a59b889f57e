"""Best values at the end of what was searched are told, where the recipe could go beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from flyweight.tune.edges import edges
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source
from flyweight.tune.suggest import distribution


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "two.npz"
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    np.savez(file, images=images, labels=np.arange(200) % 2)
    return str(file)


def search_of(data: str, folder: Path, *params: dict[str, Any]) -> Search:
    import yaml

    (folder / "space.yaml").write_text(yaml.safe_dump({"params": list(params)}))
    found, _ = plan_search(
        Source(data), out=folder / "out", recipe="smoke", space=str(folder / "space.yaml"), stop="none"
    )
    return found


def best(search: Search, *values: Any) -> list[FrozenTrial]:
    """Return trials with these values of the first param, best first."""
    (param, *_) = search.space.params
    return [
        create_trial(
            state=TrialState.RUNNING, params={param.name: value}, distributions={param.name: distribution(param)}
        )
        for value in values
    ]


RATE = {"key": "optim.lr", "low": 0.01, "high": 1.0, "log": True}
BATCH = {"key": "batch_size", "choices": [32, 64, 128]}
SMOOTHING = {"key": "label_smoothing", "low": 0.0, "high": 0.2}
SHIFT = {"key": "augment.shift", "low": 1, "high": 6, "integer": True}


@pytest.mark.parametrize(
    ("param", "values", "end"),
    [
        (RATE, (0.95, 0.99, 0.1), "upper"),
        (RATE, (0.0101, 0.011, 0.1), "lower"),
        (RATE, (0.95, 0.2, 0.1), None),  # one of three is chance
        (RATE, (0.95, 0.0101, 0.1), None),
        (SMOOTHING, (0.199, 0.2, 0.195), "upper"),
        (SMOOTHING, (0.0, 0.001, 0.0), None),  # less than none cannot be
        (SHIFT, (6, 6, 3), "upper"),
        (SHIFT, (1, 1, 1), "lower"),
        (BATCH, (128, 128, 64), "upper"),
        (BATCH, (32, 32, 64), "lower"),
        (BATCH, (64, 64, 32), None),
        ({**BATCH, "choices": [128, 64, 32]}, (128, 32, 128), "upper"),
        ({**BATCH, "choices": [2, 3, 4]}, (2, 2, 2), None),  # no batch is smaller
        ({**BATCH, "choices": [32, 128]}, (128, 128, 128), None),  # one of two is always at an end
        ({**BATCH, "choices": [64, 32, 128]}, (128, 128, 128), None),  # in no order
        ({"key": "optim.name", "choices": ["adamw", "muon", "sgd"]}, ("sgd", "sgd", "sgd"), None),
    ],
)
def test_what_most_of_the_best_have_at_an_end_is_told(
    param: dict[str, Any], values: tuple[Any, ...], end: str | None, data: str, tmp_path: Path
) -> None:
    search = search_of(data, tmp_path, param)
    told = edges(search, best(search, *values))
    if end is None:
        assert told == ()
    else:
        (sentence,) = told
        assert sentence.startswith(f"{param['key']}: the best trials lie at the {end} end of the ")
        assert ("choices" if "choices" in param else "range") in sentence


def test_only_the_three_best_are_looked_at_and_none_is_no_edge(data: str, tmp_path: Path) -> None:
    search = search_of(data, tmp_path, RATE)
    assert edges(search, []) == ()
    assert edges(search, best(search, 0.1, 0.2, 0.1, *[1.0] * 9)) == ()
    assert len(edges(search, best(search, 1.0))) == 1
