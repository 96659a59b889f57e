"""Subsets are nested, equal over classes, and leave the sealed parts whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.data.pictures import class_folders
from tests.studies.small import small_cifar10, small_mnist

from flyweight.cli import run
from flyweight.data.audit import leave_out
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import split
from flyweight.data.subset import left_out, subset
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


def test_ten_percent_lie_in_twenty_and_those_in_all(sample: Dataset) -> None:
    tenth, fifth, whole = (subset(sample, fraction=share) for share in (0.1, 0.2, 1.0))
    assert training_hashes(tenth) < training_hashes(fifth) < training_hashes(whole)
    assert whole.fingerprint() == sample.fingerprint()
    assert tenth.parts is not None
    assert np.bincount(tenth.labels[tenth.parts != "test"]).tolist() == [60] * 10


def test_a_fraction_of_unequal_classes_is_as_equal_as_they_reach(sample: Dataset) -> None:
    assert sample.parts is not None
    training, sealed = np.flatnonzero(sample.parts != "test"), np.flatnonzero(sample.parts == "test")
    rare, common = (training[sample.labels[training] == label][:count] for label, count in ((0, 10), (1, 190)))
    uneven = sample.take(np.concatenate([rare, common, sealed]))
    for share, counts in ((0.05, [5, 5]), (0.1, [10, 10]), (0.5, [10, 90]), (1.0, [10, 190])):
        small = subset(uneven, fraction=share)
        assert small.parts is not None
        assert np.bincount(small.labels[small.parts != "test"]).tolist() == counts


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_fraction_that_is_none_is_refused(sample: Dataset, fraction: float) -> None:
    with pytest.raises(DataError, match="choose one above 0 and at most 1"):
        subset(sample, fraction=fraction)


def test_the_names_left_out_make_the_same_subset(sample: Dataset, tmp_path: Path) -> None:
    (tmp_path / "left-out.txt").write_text("\n".join(left_out(sample, fraction=0.1)))
    assert leave_out(sample, tmp_path / "left-out.txt").fingerprint() == subset(sample, fraction=0.1).fingerprint()


def test_the_command_writes_a_list_that_training_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "left-out.txt"
    assert run(["data", "subset", "sample", "--per-class", "20", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["left_out"]) == (1200, 5800)
    assert len(leave_out(load_data("sample"), out)) == 1200


def test_a_subset_of_no_stated_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "subset", "sample", "--out", str(tmp_path / "list.txt")]) == 1
    assert "--per-class N or --fraction SHARE" in capsys.readouterr().err


def folders(root: Path) -> str:
    """Write 40 pictures of two classes."""
    class_folders(root, 20)
    return str(root)


def manifest(root: Path) -> str:
    class_folders(root / "pictures", 20)
    rows = [[str(path.relative_to(root)), path.parent.name] for path in sorted(root.rglob("*.png"))]
    (root / "all.csv").write_text("path,label\n" + "\n".join(",".join(row) for row in rows))
    return str(root / "all.csv")


def arrays(root: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(root / "a.npz", images=images, labels=np.arange(40) % 2)
    return str(root / "a.npz")


def idx(root: Path) -> str:
    small_mnist(root, train=60, test=20)
    return f"mnist:{root}"


def pickles(root: Path) -> str:
    small_cifar10(root, train=60, test=20)
    return f"cifar10:{root}"


@pytest.mark.parametrize("source", [folders, manifest, arrays, idx, pickles])
def test_subsets_of_every_source_are_nested_and_leave_what_is_sealed(
    source: Callable[[Path], str], tmp_path: Path
) -> None:
    dataset = load_data(source(tmp_path))
    small, large = (subset(dataset, fraction=share) for share in (0.2, 0.5))
    assert training_hashes(small) < training_hashes(large)
    assert small.parts is not None
    assert large.parts is not None
    assert (small.parts == "test").sum() == (large.parts == "test").sum() > 0
    counts = np.bincount(small.labels[small.parts != "test"])
    assert counts.max() - counts.min() <= 1
