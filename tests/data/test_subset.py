"""Subsets are nested, equal over classes, and leave the sealed parts whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import split
from flyweight.data.subset import subset
from flyweight.errors import DataError


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_data("sample")


def training_hashes(dataset: Dataset) -> set[bytes]:
    assert dataset.parts is not None
    return set(dataset.hashes()[dataset.parts != "test"].tolist())


def test_small_subsets_lie_in_larger_ones_and_have_equal_classes(sample: Dataset) -> None:
    small, large = subset(sample, per_class=20), subset(sample, per_class=50)
    assert training_hashes(small) < training_hashes(large)
    assert small.parts is not None
    counts = np.bincount(small.labels[small.parts != "test"])
    assert counts.tolist() == [20] * 10


def test_the_test_part_stays_whole(sample: Dataset) -> None:
    small = subset(sample, per_class=20)
    assert sample.parts is not None
    assert small.parts is not None
    assert (small.parts == "test").sum() == (sample.parts == "test").sum()


def test_fewer_classes_are_the_first_ones_with_their_own_test_images(sample: Dataset) -> None:
    three = subset(sample, classes=3, per_class=10)
    assert three.classes == sample.classes[:3]
    assert set(three.labels.tolist()) == {0, 1, 2}
    assert training_hashes(three) < training_hashes(subset(sample, classes=5, per_class=10))


def test_unequal_classes_give_each_as_many_as_there_are(sample: Dataset) -> None:
    labels = sample.labels
    assert sample.parts is not None
    training = sample.parts != "test"
    few = np.flatnonzero(training & (labels == 0))[:15]
    uneven = sample.take(np.concatenate([few, np.flatnonzero(~(training & (labels == 0)))]))
    small = subset(uneven, per_class=20)
    assert small.parts is not None
    assert np.bincount(small.labels[small.parts != "test"]).tolist() == [15] + [20] * 9


def test_where_no_part_is_official_the_test_part_is_sealed_before_anything_is_thinned(sample: Dataset) -> None:
    open_ended = replace(sample, parts=None)
    small = subset(open_ended, per_class=20)
    whole = split(open_ended)
    parts = split(small)
    assert len(parts.test) == len(whole.test) > 500
    sealed = set(open_ended.hashes()[whole.test].tolist())
    assert set(small.hashes()[parts.test].tolist()) == sealed
    assert len(parts.train) + len(parts.val) == 200


def test_more_classes_than_there_are_is_refused(sample: Dataset) -> None:
    with pytest.raises(DataError, match="has 10 classes, and 11"):
        subset(sample, classes=11)
