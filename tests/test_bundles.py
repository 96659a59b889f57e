"""Every shipped bundle says of itself what its bytes say: files, counts, answers, and on the real data its accuracy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyweight.api import Bundle, verify

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BOTH = ("fp32", "int8")


@dataclass(frozen=True)
class Promise:
    """What a bundle ships as, and the limits it was made for."""

    data: str
    default: str
    params: int | None
    int8_bytes: int
    results: str = "tiny_cnn.json"
    variants: tuple[str, ...] = BOTH


PROMISES = {
    "tiny-mnist": Promise("mnist", "fp32", 14_862, 30_000),
    "tiny-fashion-mnist": Promise("fashion-mnist", "fp32", 14_862, 30_000),
    "tiny-cifar10": Promise("cifar10", "fp32", 19_622, 30_000),
    "small-cifar10": Promise("cifar10", "int8", None, 98_496),
    "cifar10-1mb": Promise("cifar10", "int8", None, 1_000_000, "lightweight_five.json", ("int8",)),
    "cifar10-5mb": Promise("cifar10", "int8", None, 5_000_000, "lightweight_five.json", ("int8",)),
}


FILES = [(name, variant) for name, promise in PROMISES.items() for variant in promise.variants]


def test_every_bundle_in_the_repository_has_its_promise_here() -> None:
    found = {folder.name: tuple(sorted(Bundle.open(folder).variants)) for folder in (ROOT / "bundles").iterdir()}
    assert found == {name: promise.variants for name, promise in PROMISES.items()}


@pytest.mark.parametrize(("name", "variant"), FILES)
def test_it_verifies_and_keeps_its_limits(name: str, variant: str) -> None:
    bundle, promise = Bundle.open(ROOT / "bundles" / name), PROMISES[name]
    assert (bundle.name, bundle.default) == (name, promise.default)
    found = verify(bundle.path, variant=variant)
    assert found.ok, found.failures
    assert found.golden_n >= 16
    if promise.params is not None:
        assert found.params <= promise.params
        assert found.size_bytes < 100_000
    if variant == "int8":
        assert found.size_bytes <= promise.int8_bytes


@pytest.mark.parametrize("name", PROMISES)
def test_its_card_says_what_the_committed_results_say_of_the_seed_that_validates_best(name: str) -> None:
    bundle, promise = Bundle.open(ROOT / "bundles" / name), PROMISES[name]
    seeds = json.loads((RESULTS / promise.results).read_text())["details"][name]["seeds"]
    best = max(seeds, key=lambda seed: seed["val_accuracy" if promise.default == "fp32" else "val_accuracy_int8"])
    for variant in promise.variants:
        recorded = bundle.variant(variant).accuracy
        assert recorded is not None
        assert recorded["top1"] == best[variant]["accuracy"]
        assert recorded["n"] == 10_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), FILES)
def test_its_accuracy_is_recomputed_from_the_official_test_images(name: str, variant: str, real_data: Path) -> None:
    found = verify(ROOT / "bundles" / name, f"{PROMISES[name].data}:{real_data}", variant)
    assert found.ok, found.failures
    assert found.matches_card
    assert found.n == 10_000
