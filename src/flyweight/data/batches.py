"""Batches of images: from memory where the pixels fit, streamed from the map where not; the same bits either way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from flyweight.data.augment import augment_pixels, mix
from flyweight.data.augment.erase import random_boxes
from flyweight.data.augment.geometry import resized_crop_one
from flyweight.data.augment.layout import channels_first
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
        image_size: Side in px of what is yielded.
        policy: Random changes, for training; None: none.
        train: Shuffled and changed if true; in order and unchanged if false.
        resident: Hold the pixels in the device's memory; None: where they fit.
        weights: (N,) chance of each image to be drawn, with replacement; None: each once an epoch.
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
    ) -> None:
        if not len(store):
            raise DataError("there are no images to batch", do="check the split: flyweight data check PATH")
        self.store, self.batch_size, self.image_size, self.num_classes = store, batch_size, image_size, num_classes
        self.policy = policy if train and policy is not None else AugmentPolicy()
        self.seed, self.device, self.train = seed, torch.device(device), train
        self.labels = torch.from_numpy(np.ascontiguousarray(labels)).to(self.device)
        self.weights = None if weights is None else torch.from_numpy(np.ascontiguousarray(weights))
        resident = self.fits(store, device) if resident is None else resident
        self.memory = self._hold() if resident else None

    @staticmethod
    def fits(store: FixedStore | RaggedStore, device: str) -> bool:
        """True where the pixels take at most a quarter of the memory that is free."""
        return store.nbytes <= RESIDENT_SHARE * _free_bytes(device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.store), self.batch_size)
        return whole + (rest > 1 if self.train else rest > 0) or 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield images (N, C, S, S), uint8 or (where mixup is on) float32 in 0..255, in channels_last memory,
        with labels (N,), or targets (N, K) where images are mixed; from batch `start` on."""
        order = self._order(epoch)
        steps = range(start, len(self))
        if self.memory is not None:
            for step in steps:
                yield self._batch(order, epoch, step)
            return
        with ThreadPoolExecutor(1) as pool:  # reads the map one batch ahead
            ahead = None
            for step in [*steps, None]:
                coming = None if step is None else pool.submit(self._batch, order, epoch, step)
                if ahead is not None:
                    yield ahead.result()
                ahead = coming

    def _order(self, epoch: int) -> Tensor:
        if not self.train:
            return torch.arange(len(self.store))
        generator = _generator(self.seed, epoch, -1)
        if self.weights is not None:
            return torch.multinomial(self.weights, len(self.store), replacement=True, generator=generator)
        return torch.randperm(len(self.store), generator=generator)

    def _batch(self, order: Tensor, epoch: int, step: int) -> Batch:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        generator = _generator(self.seed, epoch, step)
        ragged = isinstance(self.store, RaggedStore)
        pixels = self._crops(chosen, generator) if ragged else self._gather(chosen)
        labels = self.labels[chosen.to(self.device)]
        if not self.train:
            return channels_first(pixels), labels
        images = channels_first(augment_pixels(pixels, self.policy, generator, cropped=ragged))
        if not self.policy.mixes:
            return images, labels
        targets = functional.one_hot(labels, self.num_classes).float()
        return mix(images, targets, self.policy, generator)

    def _gather(self, chosen: Tensor) -> Tensor:
        if isinstance(self.memory, Tensor):
            return self.memory.index_select(0, chosen.to(self.device))
        assert isinstance(self.store, FixedStore)
        return torch.from_numpy(self.store.take(chosen.numpy())).to(self.device, non_blocking=True)

    def _crops(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Cut and resize one box of each image, (N, S, S, C): at random for training, the middle square otherwise."""
        store = self.store
        assert isinstance(store, RaggedStore)
        places = torch.from_numpy(store.places[chosen.numpy()])
        height, width = places[:, 1], places[:, 2]
        if self.train and self.policy.random_resized_crop is not None:
            area, ratio = self.policy.random_resized_crop, self.policy.crop_ratio
            boxes = random_boxes(len(chosen), height, width, area, ratio, generator)
        else:
            side = torch.minimum(height, width)
            boxes = torch.stack(((height - side) // 2, (width - side) // 2, side, side), 1)
        cut = []
        for index, (top, left, tall, wide) in zip(chosen.tolist(), boxes.tolist(), strict=True):
            view = store.image(index)[top : top + tall, left : left + wide]
            cut.append(resized_crop_one(torch.from_numpy(np.ascontiguousarray(view)), self.image_size))
        return torch.stack(cut).to(self.device)

    def _hold(self) -> Any:
        if isinstance(self.store, RaggedStore):  # small reads of the map, kept by the system's own cache
            return self.store.memory
        return torch.from_numpy(np.ascontiguousarray(self.store.pixels)).to(self.device)


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Return a generator that (seed, epoch, step) decides; mixed so that neighbours have nothing in common."""
    mixed = np.random.SeedSequence((seed, epoch, step + 1)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def _free_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
