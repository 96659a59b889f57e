"""Batches: the same bits resident or streamed, entered anywhere, and nothing lost or invented on the way."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from flyweight.data import batches as batches_module
from flyweight.data.batches import Batches
from flyweight.data.cache import FixedStore, RaggedStore, build_fixed, build_ragged
from flyweight.data.dataset import Dataset, ImageFiles
from flyweight.data.policy import AugmentPolicy
from flyweight.errors import DataError
from flyweight.runtime.preprocess import Preprocess

COUNT = 50
LABELS = np.arange(COUNT, dtype=np.int64) % 5
POLICIES = {
    "plain": AugmentPolicy(),
    "crop_flip": AugmentPolicy(shift=2, hflip=0.5),
    "strong": AugmentPolicy(
        random_resized_crop=(0.4, 1.0), hflip=0.5, trivial=True, rotate=10, hue=0.1, erase=0.3, mixup=0.2, cutmix=1.0
    ),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{index}.png" for index in range(COUNT))
    for path in paths:
        height, width = (int(side) for side in rng.integers(20, 60, 2))
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return Dataset("files", tuple("abcde"), ImageFiles(tmp_path, paths), LABELS)


def numbered(count: int = COUNT, size: int = 8) -> FixedStore:
    """Images that each are one value: their place in the store."""
    return FixedStore(np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 1)))


def make(store: FixedStore | RaggedStore, labels: np.ndarray = LABELS, **changes: object) -> Batches:
    settings: dict[str, object] = {"batch_size": 16, "image_size": 24, "policy": None, "num_classes": 5, "seed": 3}
    return Batches(store, labels, **{**settings, **changes})  # type: ignore[arg-type]


def drawn(batches: Batches, epoch: int, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(batches.epoch(epoch, start))


def same(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) and a.dtype == c.dtype for (a, b), (c, d) in pairs)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("kind", ["fixed", "ragged"])
def test_resident_and_streamed_batches_are_equal_bit_for_bit(files: Dataset, kind: str, policy: AugmentPolicy) -> None:
    everything = np.arange(COUNT)[::-1]
    store = (
        build_fixed(files, everything, Preprocess(image_size=24))
        if kind == "fixed"
        else build_ragged(files, everything, 3, 28)
    )
    resident, streamed = (make(store, LABELS[::-1], policy=policy, resident=where) for where in (True, False))
    assert store.mapped
    assert not resident.store.mapped
    for epoch in (0, 5):
        assert same(drawn(resident, epoch), drawn(streamed, epoch))


@pytest.mark.parametrize("resident", [True, False])
def test_an_epoch_entered_at_a_step_equals_one_played_up_to_it(resident: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    whole = make(FixedStore(pixels), policy=POLICIES["strong"], resident=resident)
    for start in range(5):
        fresh = make(FixedStore(pixels), policy=POLICIES["strong"], resident=resident)
        assert same(drawn(fresh, 2, start), drawn(whole, 2)[start:])


def test_batches_made_ahead_are_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    ahead, behind = (make(FixedStore(pixels), policy=POLICIES["strong"], ahead=ahead) for ahead in (True, False))
    assert same(drawn(ahead, 1, 2), drawn(behind, 1, 2))


def test_seed_and_epoch_each_change_order_and_draws() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    one = make(FixedStore(pixels), policy=POLICIES["crop_flip"])
    other = make(FixedStore(pixels), policy=POLICIES["crop_flip"], seed=4)
    assert not same(drawn(one, 0), drawn(one, 1))
    assert not same(drawn(one, 0), drawn(other, 0))
    assert same(drawn(one, 0), drawn(one, 0))


def test_the_state_of_torchs_global_generator_plays_no_part() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    batches = make(FixedStore(pixels), policy=POLICIES["strong"])
    torch.manual_seed(0)
    first = drawn(batches, 0)
    torch.manual_seed(99)
    assert same(first, drawn(batches, 0))


def test_training_gives_each_image_once_an_epoch_with_its_own_label() -> None:
    images, labels = (torch.cat(parts) for parts in zip(*drawn(make(numbered(), image_size=8), 0), strict=True))
    values = images[:, 0, 0, 0]
    assert sorted(values.tolist()) == list(range(COUNT))
    assert values.tolist() != list(range(COUNT))
    assert torch.equal(labels, torch.from_numpy(LABELS)[values.long()])


def test_a_last_training_batch_of_one_is_left_out_and_of_two_is_kept() -> None:
    for count, sizes in ((33, [16, 16]), (34, [16, 16, 2]), (1, [1])):
        batches = make(numbered(count), LABELS[:count], image_size=8)
        assert [len(images) for images, _ in batches.epoch(0)] == sizes
        assert len(batches) == len(sizes)


@pytest.mark.parametrize("resident", [True, False])
def test_evaluation_gives_every_image_in_order_unchanged(resident: bool) -> None:
    store = numbered(33)
    batches = make(store, LABELS[:33], image_size=8, policy=POLICIES["strong"], train=False, resident=resident)
    images, labels = (torch.cat(parts) for parts in zip(*drawn(batches, 0), strict=True))
    assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(store.pixels.copy()))
    assert labels.tolist() == LABELS[:33].tolist()
    assert len(batches) == 3


def test_sampling_weights_make_classes_equally_frequent() -> None:
    labels = np.repeat([0, 1], [45, 5])
    weights = 1.0 / np.bincount(labels)[labels]
    batches = make(numbered(), labels, image_size=8, weights=weights, num_classes=2)
    seen = torch.cat([found for epoch in range(40) for _, found in batches.epoch(epoch)])
    assert abs(float(seen.float().mean()) - 0.5) < 0.05


def test_images_come_in_channels_last_memory_as_uint8_or_float_where_mixed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    for name, dtype in (("plain", torch.uint8), ("crop_flip", torch.uint8), ("strong", torch.float32)):
        images, targets = next(make(FixedStore(pixels), policy=POLICIES[name]).epoch(0))
        assert images.shape == (16, 3, 24, 24)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.dtype == dtype
        assert targets.shape == ((16, 5) if name == "strong" else (16,))
        assert targets.dtype == (torch.float32 if name == "strong" else torch.int64)


def test_a_ragged_store_without_random_crops_gives_the_middle_square(files: Dataset) -> None:
    store = build_ragged(files, np.arange(COUNT), 3, 500)
    batches = make(store, batch_size=COUNT)
    images, _ = next(batches.epoch(0))
    order = batches._order(0)
    for place in range(5):
        image = torch.from_numpy(store.image(int(order[place])).copy()).permute(2, 0, 1)
        height, width = image.shape[1:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        expected = reference.resized_crop(image, top, left, side, side, [24, 24], antialias=True)
        assert (images[place].int() - expected.int()).abs().max() <= 1


def test_training_at_another_size_resizes_whole_batches_as_torchvision_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    batches = make(FixedStore(pixels), image_size=16, batch_size=COUNT)
    images, _ = next(batches.epoch(0))
    chosen = torch.from_numpy(pixels)[batches._order(0)].permute(0, 3, 1, 2)
    expected = reference.resize(chosen, [16, 16], antialias=True)
    assert images.shape == (COUNT, 3, 16, 16)
    assert (images.int() - expected.int()).abs().max() <= 1


def test_evaluation_at_another_size_than_the_store_is_refused(files: Dataset) -> None:
    with pytest.raises(DataError, match="evaluation at 24 px on a store of 8x8"):
        make(numbered(), train=False)
    with pytest.raises(DataError, match="ragged"):
        make(build_ragged(files, np.arange(COUNT), 3, 28), train=False)


def test_no_images_or_missing_labels_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        make(numbered(0), LABELS[:0], image_size=8)
    with pytest.raises(DataError, match="49 labels for 50 images"):
        make(numbered(), LABELS[:49], image_size=8)


def test_pixels_are_held_in_memory_up_to_a_quarter_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    store = numbered()
    monkeypatch.setattr(batches_module, "free_bytes", lambda device: 4 * store.nbytes)
    assert make(store, image_size=8).resident
    monkeypatch.setattr(batches_module, "free_bytes", lambda device: 4 * store.nbytes - 1)
    assert not make(store, image_size=8).resident


def test_a_stream_that_is_left_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    stream = make(numbered(), image_size=8, resident=False).epoch(0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_while_reading_ahead_reaches_the_reader() -> None:
    batches = make(numbered(), image_size=8, resident=False)
    batches.labels = batches.labels[:20]
    with pytest.raises(IndexError):
        drawn(batches, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_holds_and_gives_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 3), dtype=np.uint8)
    here, there = (make(FixedStore(pixels), policy=POLICIES["crop_flip"], device=device) for device in ("cpu", "cuda"))
    moved = [(images.cpu(), labels.cpu()) for images, labels in drawn(there, 0)]
    assert same(drawn(here, 0), moved)
