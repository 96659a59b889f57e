"""The split: decided by content, the same for a growing folder, never with copies or a group on two sides."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flyweight.data.dataset import Dataset, ImageArray
from flyweight.data.split import Split, open_test, split, split_from_rule
from flyweight.errors import DataError, OutputError


def noise(count: int, *, classes: int = 2, seed: int = 0, parts: list[str] | None = None) -> Dataset:
    """Images that all differ, the classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 1), dtype=np.uint8)
    names = tuple(f"class{n}" for n in range(classes))
    given = None if parts is None else np.array(parts)
    return Dataset("noise", names, ImageArray(pixels, "noise"), np.arange(count, dtype=np.int64) % classes, given)


def side(found: Split, count: int) -> list[str]:
    where = [""] * count
    for name in ("train", "val", "test"):
        for index in getattr(found, name):
            where[int(index)] += name
    return where


def test_every_image_is_in_exactly_one_part() -> None:
    assert set(side(split(noise(600)), 600)) == {"train", "val", "test"}


def test_the_parts_have_the_sizes_asked_for() -> None:
    found = split(noise(8000), val_fraction=0.2, test_fraction=0.25)
    assert len(found.test) == pytest.approx(2000, abs=150)
    assert len(found.val) == pytest.approx(1200, abs=150)  # a fifth of the rest


def test_the_order_of_the_images_does_not_matter() -> None:
    dataset = noise(400)
    order = np.random.default_rng(3).permutation(400)
    before, after = side(split(dataset), 400), side(split(dataset.take(order)), 400)
    assert [before[index] for index in order] == after


def test_a_folder_that_grows_keeps_its_split() -> None:
    big = noise(900)
    small = big.take(np.arange(500))
    assert side(split(big), 900)[:500] == side(split(small), 500)


def test_copies_of_an_image_stay_on_one_side() -> None:
    dataset = noise(300)
    twice = dataset.take(np.concatenate([np.arange(300), np.arange(300)]))
    found = side(split(twice), 600)
    assert found[:300] == found[300:]


def test_another_seed_gives_another_split() -> None:
    assert side(split(noise(400), seed=1), 400) != side(split(noise(400), seed=2), 400)


def test_a_group_stays_on_one_side() -> None:
    dataset = replace(noise(600), groups=tuple(f"person{n // 4}" for n in range(600)))
    found = side(split(dataset), 600)
    assert all(len(set(found[start : start + 4])) == 1 for start in range(0, 600, 4))
    assert len(set(found)) == 3


def test_groups_that_share_a_copy_stay_on_one_side_together() -> None:
    dataset = noise(400)
    twice = dataset.take(np.concatenate([np.arange(400), np.arange(400)]))
    pairs = [f"a{n}" for n in range(400)] + [f"b{n}" for n in range(400)]
    found = side(split(replace(twice, groups=tuple(pairs))), 800)
    assert found[:400] == found[400:]


def test_official_parts_are_kept() -> None:
    parts = ["train"] * 300 + ["val"] * 100 + ["test"] * 100
    assert side(split(noise(500, parts=parts)), 500) == parts


def test_without_an_official_val_part_some_of_train_validates_and_test_is_untouched() -> None:
    parts = ["train"] * 400 + ["test"] * 100
    found = split(noise(500, parts=parts))
    assert found.test.tolist() == list(range(400, 500))
    assert 20 < len(found.val) < 65


def test_without_an_official_test_part_some_of_train_is_sealed_and_val_is_untouched() -> None:
    parts = ["train"] * 400 + ["val"] * 100
    found = split(noise(500, parts=parts))
    assert found.val.tolist() == list(range(400, 500))
    assert 35 < len(found.test) < 85


def test_official_parts_can_be_set_aside() -> None:
    parts = ["train"] * 400 + ["test"] * 100
    assert side(split(noise(500, parts=parts), keep_official=False), 500) == side(split(noise(500)), 500)


def test_a_recorded_rule_gives_the_same_split_again() -> None:
    found = split(noise(500), seed=5, val_fraction=0.2)
    again = split_from_rule(noise(500), json.loads(json.dumps(found.rule)))
    assert side(again, 500) == side(found, 500)


def test_a_rule_that_lacks_a_key_is_refused_with_its_name() -> None:
    with pytest.raises(DataError, match="val_fraction"):
        split_from_rule(noise(50), {"seed": 0})


def test_a_class_missing_in_val_is_named_with_what_to_do() -> None:
    parts = ["train"] * 90 + ["val"] * 10
    labels = np.array([0, 1, 2] * 30 + [0, 1] * 5, dtype=np.int64)
    dataset = replace(noise(100, classes=3, parts=parts), labels=labels)
    with pytest.raises(DataError, match="val part has no image of 1 class: 'class2'") as caught:
        split(dataset)
    assert "'class2'" in caught.value.do
    assert "val_fraction" not in caught.value.do  # the source's own part has no fraction to set


def test_a_class_missing_in_train_is_named_with_what_to_do() -> None:
    parts = ["train"] * 60 + ["val"] * 20 + ["test"] * 20
    labels = np.array([0, 1] * 30 + [0, 1, 2, 2] * 10, dtype=np.int64)
    dataset = replace(noise(100, classes=3, parts=parts), labels=labels)
    with pytest.raises(DataError, match="train part has no image of 1 class: 'class2'"):
        split(dataset)


def test_each_opening_of_the_test_part_is_a_line_that_stays(tmp_path: Path) -> None:
    log = tmp_path / "run" / "openings.jsonl"
    open_test(log, why="end of fit")
    open_test(log, why="verify")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["why"] for line in lines] == ["end of fit", "verify"]


def test_an_opening_that_cannot_be_logged_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="openings"):
        open_test(tmp_path / "file" / "openings.jsonl", why="end of fit")


def test_sixty_thousand_images_are_split_at_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), dtype=np.uint8)
    dataset = Dataset("many", ("a", "b"), ImageArray(pixels, "many"), np.arange(60_000, dtype=np.int64) % 2)
    start = time.process_time()
    split(dataset)
    assert time.process_time() - start < 5  # 0.3 s measured; a Python loop over pixels would take minutes


def test_a_class_that_chance_left_without_validation_gets_one_image_and_copies_go_with_it() -> None:
    dataset = noise(12, classes=2)
    twice = dataset.take(np.concatenate([np.arange(12), np.arange(12)]))
    found = split(replace(twice, parts=np.array(["train"] * 24)), val_fraction=1e-9, test_fraction=0.3, seed=1)
    where = side(found, 24)
    assert where[:12] == where[12:]
    assert np.bincount(twice.labels[found.val]).tolist() == [2, 2]
