"""Images of many requests in one run of the model: what came while the last batch ran is the next one."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from flyweight.serve.limits import Limits, busy


class Runs(Protocol):
    """What runs a batch: a backend of `runtime.backends`."""

    only_batch: int | None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) of images (N, C, S, S) uint8."""


Waiting = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]


class Batcher:
    """Collects images and runs them together, one batch at a time, in one thread of its own.

    Attributes:
        sizes: How many batches ran, by their number of images.
    """

    def __init__(self, backend: Runs, limits: Limits) -> None:
        self._backend, self._wait = backend, limits.batch_wait_ms / 1000
        self._most = backend.only_batch or limits.max_batch
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(limits.waiting)
        self._thread = ThreadPoolExecutor(1, "flyweight-model")
        self._task: asyncio.Task[None] | None = None
        self.sizes: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """How many images wait for the model."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """True while batches are run."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin, inside a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; images that still wait get no answer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def logits(self, image: np.ndarray) -> np.ndarray:
        """Return logits (K,) of one image (C, S, S) uint8. Raises ServeError (503) when the queue is full."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((image, answer))
        except asyncio.QueueFull:
            raise busy("too many images wait for the model") from None
        return await answer

    async def _run(self) -> None:
        while True:
            batch = [found for found in await self._collect() if not found[1].done()]  # done: its client has gone
            if not batch:
                continue
            self.sizes[len(batch)] = self.sizes.get(len(batch), 0) + 1
            try:
                stacked = self._filled(np.stack([image for image, _ in batch]))
                logits = await asyncio.get_running_loop().run_in_executor(self._thread, self._backend.run, stacked)
            except Exception as error:  # each of the requests answers for it; the next batch may do better
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), row in zip(batch, logits, strict=False):  # a filled batch has more rows
                if not answer.done():
                    answer.set_result(row)

    async def _collect(self) -> list[Waiting]:
        batch = [await self._queue.get()]
        if self._wait > 0 and self._queue.qsize() + 1 < self._most:
            await asyncio.sleep(self._wait)
        while len(batch) < self._most and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    def _filled(self, images: np.ndarray) -> np.ndarray:
        """Return the batch filled up with zeros for a model that takes one number of images only."""
        only = self._backend.only_batch
        if only is None or len(images) == only:
            return images
        return np.concatenate([images, np.zeros((only - len(images), *images.shape[1:]), images.dtype)])
