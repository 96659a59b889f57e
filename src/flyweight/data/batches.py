"""Batches of images: from memory where the pixels fit, streamed from the map where not; the same bits either way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from flyweight.data.augment import augment_pixels, mix
from flyweight.data.augment.erasing import random_boxes
from flyweight.data.augment.geometry import resized_crop_one
from flyweight.data.augment.layout import channels_first, channels_last
from flyweight.data.cache import FixedStore, RaggedStore
from flyweight.data.policy import AugmentPolicy
from flyweight.errors import DataError

RESIDENT_SHARE = 0.25  # of the memory that is free: pixels above this are streamed from the map
Batch = tuple[Tensor, Tensor]


class Batches:
    """An endless supply of epochs over one part of a data set.

    Everything random is a function of (seed, epoch, step) alone, so an epoch may be entered at any step.

    Args:
        store: The pixels.
        labels: (N,) int64, in the order of the store.
        batch_size: Images per batch; the last batch of an epoch is smaller (a training batch of one is left out,
            since batch norm cannot use it).
        image_size: Side in px of what is yielded. Training batches of another size are resized from the store.
        policy: Random changes, for training; None: none.
        second: Random changes of a second view of the same images, which is stacked behind the first along the
            channels: (N, 2C, S, S). None: one view.
        num_classes: K of the targets.
        seed: Of the order, the draws and the mixing.
        device: Where batches are wanted.
        resident: Hold the pixels in the device's memory; None: where they fit (`fits`).
        train: Shuffled and changed if true; in order, unchanged and complete if false.
        weights: (N,) relative chance of each image to be drawn, with replacement; None: each once an epoch.
        epoch_images: Images in a training epoch, others in each; None: all.
        ahead: Make the next batch in a thread while the current one is used; None: where the map or a GPU would wait.
            On a CPU it pays only with a core to spare (measured on a busy one: 20 % slower). The bits are the same.

    Raises:
        DataError: No images, labels that are not one per image, pixels of another size to evaluate on, or two views
            of images that are mixed.
    """

    def __init__(
        self,
        store: FixedStore | RaggedStore,
        labels: NDArray[np.int64],
        *,
        batch_size: int,
        image_size: int,
        policy: AugmentPolicy | None,
        num_classes: int,
        seed: int = 0,
        device: str = "cpu",
        resident: bool | None = None,
        train: bool = True,
        weights: NDArray[np.float64] | None = None,
        second: AugmentPolicy | None = None,
        epoch_images: int | None = None,
        ahead: bool | None = None,
    ) -> None:
        _check(store, labels, image_size, train)
        _check_views(policy, second)
        self.batch_size, self.image_size, self.num_classes = batch_size, image_size, num_classes
        self.policy = policy if train and policy is not None else AugmentPolicy()
        self.second = second if train else None
        self.images = min(epoch_images or len(store), len(store)) if train else len(store)
        self.seed, self.device, self.train = seed, torch.device(device), train
        self.labels = torch.from_numpy(np.array(labels, np.int64)).to(self.device)
        self.weights = None if weights is None else torch.from_numpy(np.array(weights, np.float64))
        self.resident = self.fits(store, device) if resident is None else resident
        self.store, self.on_device = _held(store, self.device) if self.resident else (store, None)
        waits = not self.resident or (isinstance(store, RaggedStore) and self.device.type != "cpu")
        self.ahead = waits if ahead is None else ahead

    @staticmethod
    def fits(store: FixedStore | RaggedStore, device: str) -> bool:
        """True where the pixels take at most a quarter (RESIDENT_SHARE) of the device's free memory."""
        return store.nbytes <= RESIDENT_SHARE * free_bytes(device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(self.images, self.batch_size)
        return whole + (rest > 1 if self.train else rest > 0) or 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on.

        Yields:
            images (N, C, S, S), uint8 or (where mixup is on) float32 in 0..255, in channels_last memory; and
            labels (N,) int64, or targets (N, K) float32 where images are mixed.
        """
        order = self._order(epoch)
        steps = range(start, len(self))
        if self.ahead:
            yield from self._ahead(order, epoch, steps)
            return
        for step in steps:
            yield self._batch(order, epoch, step)

    def _ahead(self, order: Tensor, epoch: int, steps: range) -> Iterator[Batch]:
        """Make the next batch in a thread while the current one is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            coming = [pool.submit(self._batch, order, epoch, step) for step in steps[:1]]
            for step in steps:
                batch = coming.pop().result()
                if step + 1 in steps:
                    coming.append(pool.submit(self._batch, order, epoch, step + 1))
                yield batch

    def _order(self, epoch: int) -> Tensor:
        count = len(self.store)
        if not self.train:
            return torch.arange(count)
        generator = _generator(self.seed, epoch, -1)
        if self.weights is not None:
            return torch.multinomial(self.weights, self.images, replacement=True, generator=generator)
        return torch.randperm(count, generator=generator)[: self.images]

    def _batch(self, order: Tensor, epoch: int, step: int) -> Batch:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        labels = self.labels[chosen.to(self.device)]
        if not self.train:
            return channels_first(self._gather(chosen)), labels
        generator = _generator(self.seed, epoch, step)
        ragged = isinstance(self.store, RaggedStore)
        pixels = self._crops(chosen, generator) if ragged else self._sized(self._gather(chosen))
        images = channels_first(augment_pixels(pixels, self.policy, generator, cropped=ragged))
        if self.second is not None:
            changed = augment_pixels(pixels, self.second, generator, cropped=ragged)
            images = torch.cat((images, channels_first(changed)), 1)
        if not self.policy.mixes:
            return images, labels
        targets = functional.one_hot(labels, self.num_classes).float()
        return mix(images, targets, self.policy, generator)

    def _gather(self, chosen: Tensor) -> Tensor:
        if self.on_device is not None:
            return self.on_device.index_select(0, chosen.to(self.device))
        assert isinstance(self.store, FixedStore)
        return torch.from_numpy(self.store.take(chosen.numpy())).to(self.device)

    def _sized(self, pixels: Tensor) -> Tensor:
        size = self.image_size
        if pixels.shape[1] == size and pixels.shape[2] == size:
            return pixels
        images = functional.interpolate(channels_first(pixels), size=(size, size), mode="bilinear", antialias=True)
        return channels_last(images)

    def _crops(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Cut and resize one box of each image, (N, S, S, C): drawn if the policy says so, else the middle square."""
        store, policy = self.store, self.policy
        assert isinstance(store, RaggedStore)
        places = torch.from_numpy(store.places[chosen.numpy()])
        height, width = places[:, 1], places[:, 2]
        if policy.random_resized_crop is not None:
            boxes = random_boxes(len(chosen), height, width, policy.random_resized_crop, policy.crop_ratio, generator)
        else:
            side = torch.minimum(height, width)
            boxes = torch.stack(((height - side) // 2, (width - side) // 2, side, side), 1)
        cut = torch.empty((len(chosen), self.image_size, self.image_size, store.channels), dtype=torch.uint8)
        for place, (index, (top, left, tall, wide)) in enumerate(zip(chosen.tolist(), boxes.tolist(), strict=True)):
            box = np.array(store.image(index)[top : top + tall, left : left + wide])
            cut[place] = resized_crop_one(torch.from_numpy(box), self.image_size)
        return cut.to(self.device)


def free_bytes(device: str) -> int:
    """Return the memory that a new tensor could take: of the GPU, or of the machine or container, whichever is less."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _number(path: Path) -> int | None:
    """Return the whole number in a file; None where there is no such file, or no limit in it."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _held(store: FixedStore | RaggedStore, device: torch.device) -> tuple[FixedStore | RaggedStore, Tensor | None]:
    """Return the store in the machine's memory, or as a tensor in the device's."""
    if isinstance(store, RaggedStore):  # its crops are cut on the CPU, whatever the device
        return store.in_memory() if store.mapped else store, None
    if device.type != "cpu":
        return store, torch.from_numpy(np.array(store.pixels)).to(device)
    return FixedStore(np.array(store.pixels)) if store.mapped else store, None


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Return a generator that (seed, epoch, step) decides; mixed so that neighbours have nothing in common."""
    mixed = np.random.SeedSequence((seed, epoch, step + 1)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def _check_views(policy: AugmentPolicy | None, second: AugmentPolicy | None) -> None:
    mixes = [view for view in (policy, second) if view is not None and view.mixes]
    if second is not None and mixes:
        raise DataError(
            f"mixup={mixes[0].mixup:g} and cutmix={mixes[0].cutmix:g} with two views of each image: the views would be "
            "mixed with different partners under one target",
            do="set mixup and cutmix to 0 in augment and in the second view's augment",
        )


def _check(store: FixedStore | RaggedStore, labels: NDArray[np.int64], image_size: int, train: bool) -> None:
    if not len(store):
        raise DataError("there are no images to batch", do="check the split: flyweight data check PATH")
    if len(labels) != len(store):
        raise DataError(
            f"{len(labels)} labels for {len(store)} images", do="give one label per image, in the order of the store"
        )
    exact = isinstance(store, FixedStore) and store.memory.shape[1:3] == (image_size, image_size)
    if not train and not exact:
        found = "x".join(map(str, store.memory.shape[1:3])) if isinstance(store, FixedStore) else "ragged"
        raise DataError(
            f"evaluation at {image_size} px on a store of {found} pixels: they would not be those of the runtime",
            do=f"build_fixed(..., Preprocess(image_size={image_size})) for the images that are evaluated",
        )
