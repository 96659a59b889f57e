"""The parts of the server that have rules of their own: gates, rates, batches, patience."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from flyweight.errors import ServeError
from flyweight.serve.batching import Batcher
from flyweight.serve.limits import Gate, Limits, Pool, Rates, Share


class Sums:
    """A backend whose logits are the sum of the image; it waits to be let go."""

    def __init__(self, only_batch: int | None = None) -> None:
        self.only_batch, self.go, self.shapes = only_batch, threading.Event(), []

    def run(self, images: np.ndarray) -> np.ndarray:
        self.go.wait(10)
        self.shapes.append(len(images))
        if images.max() == 255:
            raise RuntimeError("cannot run this")
        return images.reshape(len(images), -1).sum(1, dtype=np.float32)[:, None]


def image(value: int) -> np.ndarray:
    return np.full((1, 2, 2), value, np.uint8)


async def classify(backend: Sums, values: list[int], limits: Limits) -> list[object]:
    batcher = Batcher(backend, limits)
    batcher.start()
    tasks = [asyncio.create_task(batcher.logits(image(value))) for value in values]
    await asyncio.sleep(0.05)
    backend.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await batcher.stop()
    return [one if isinstance(one, BaseException) else float(one[0]) for one in found]


def test_images_that_wait_are_run_together_and_each_gets_its_own_answer() -> None:
    backend = Sums()
    assert asyncio.run(classify(backend, list(range(20)), Limits(max_batch=8))) == [4.0 * value for value in range(20)]
    assert backend.shapes == [8, 8, 4]


def test_a_model_of_one_batch_size_gets_full_batches() -> None:
    backend = Sums(only_batch=4)
    assert asyncio.run(classify(backend, [1, 2, 3, 4, 5, 6], Limits())) == [4.0, 8.0, 12.0, 16.0, 20.0, 24.0]
    assert backend.shapes == [4, 4]


def test_more_images_than_may_wait_are_refused_with_503() -> None:
    found = asyncio.run(classify(Sums(), [1] * 10, Limits(waiting=4, max_batch=2)))
    refused = [one for one in found if isinstance(one, ServeError)]
    assert len(refused) == 6
    assert {(one.status, one.retry_after) for one in refused} == {(503, 1)}


def test_a_batch_that_fails_ends_its_own_requests_and_no_others() -> None:
    found = asyncio.run(classify(Sums(), [255, 1, 2], Limits(max_batch=1)))
    assert isinstance(found[0], RuntimeError)
    assert found[1:] == [4.0, 8.0]


def test_the_gate_lets_in_what_fits_in_order_and_gives_back_what_a_cancelled_one_held() -> None:
    async def story() -> list[str]:
        gate, seen = Gate(10), []

        async def hold(name: str, amount: int, seconds: float) -> None:
            async with gate.held(amount):
                seen.append(f"{name} in, {gate.taken}")
                await asyncio.sleep(seconds)

        first = asyncio.create_task(hold("a", 6, 10))
        second = asyncio.create_task(hold("b", 99, 0))  # as much as there is
        third = asyncio.create_task(hold("c", 3, 0))
        await asyncio.sleep(0.01)
        assert seen == ["a in, 6"]
        second.cancel()
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert gate.taken == 0
        return seen

    assert asyncio.run(story()) == ["a in, 6", "c in, 9"]


def test_a_share_of_the_pool_is_given_back_and_more_than_all_is_refused() -> None:
    pool = Pool(10, "full")
    with Share(pool) as ours:
        ours.take(8)
        with Share(pool) as theirs, pytest.raises(ServeError, match="full"):
            theirs.take(3)
    assert pool.taken == 0


def test_rates_refill_with_time_and_count_each_client() -> None:
    now = [0.0]
    rates = Rates(2.0, 2, lambda: now[0])
    rates.take("a")
    rates.take("a")
    with pytest.raises(ServeError) as refused:
        rates.take("a")
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    rates.take("b")
    now[0] = 0.5
    rates.take("a")
