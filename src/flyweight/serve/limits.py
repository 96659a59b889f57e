"""What one server takes: sizes, counts, rates and times; and the two gates that keep them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from flyweight.errors import ServeError
from flyweight.runtime.environment import usable_cores

MORE = "docs/serve.md#limits"
MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How much is taken; what is more gets 413, 422, 429 or 503.

    Attributes:
        max_bytes: Of one upload.
        max_pixels: Of one JPEG, by its header; of other formats half as many, since their decoders take twice the
            memory (transparency, animation). As many in all are decoded at the same time.
        waiting: Requests that are read, decoded or wait for the model at the same time.
        held_bytes: Of all uploads that are held at the same time.
        max_batch: Images of one run of the model.
        batch_wait_ms: How long the first image waits for others; without, a batch is what came while the last one ran.
        rate: Requests a second of one client address; 0: any number.
        burst: So many at once before the rate counts.
        connections: Open at the same time.
        header_seconds: For the head of a request, from the connection or the last answer on.
        body_seconds: For the body of a request.
        answer_seconds: From the head of a request to the end of its answer.
        decoders: Threads that decode and resize.
        threads: Of the model; one batch runs at a time.
    """

    max_bytes: int = 10 * MB
    max_pixels: int = 20 * MB
    waiting: int = 256
    held_bytes: int = 32 * MB
    max_batch: int = 16
    batch_wait_ms: float = 0.0
    rate: float = 20.0
    burst: int = 40
    connections: int = 800
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    answer_seconds: float = 60.0
    decoders: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.decoders == 0:
            object.__setattr__(self, "decoders", usable_cores())


class Gate:
    """A sum that stays within a limit; who does not fit waits, in the order of coming."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, amount: int) -> AsyncIterator[None]:
        """Wait until `amount` fits, and hold it; what is larger than the limit counts as the limit."""
        amount = min(amount, self.limit)
        let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, let_in))
        self._let_in()
        try:
            await let_in
            yield
        finally:
            if let_in.done() and not let_in.cancelled():
                self.taken -= amount
            else:
                self._waiting.remove((amount, let_in))
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.taken + self._waiting[0][0] <= self.limit:
            amount, let_in = self._waiting.popleft()
            if let_in.cancelled():  # its request has ended, and will look for it here
                self._waiting.appendleft((amount, let_in))
                return
            self.taken += amount
            let_in.set_result(None)


class Share:
    """What one holder has taken of a sum that others take of too; given back when the block ends."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._mine = pool, 0

    def take(self, amount: int) -> None:
        """Take more. Raises ServeError (503) where the sum would pass its limit."""
        self._pool.take(amount)
        self._mine += amount

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.taken -= self._mine


class Pool:
    """A sum that refuses what does not fit."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.taken, self._what = limit, 0, what

    def take(self, amount: int) -> None:
        """Take an amount. Raises ServeError (503)."""
        if self.taken + amount > self.limit:
            raise busy(self._what)
        self.taken += amount


class Rates:
    """A token bucket for each client; the clients seen longest ago are forgotten."""

    CLIENTS = 10_000

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take one token. Raises ServeError (429) where there is none."""
        if self._rate <= 0:
            return
        now = self._clock()
        tokens, since = self._buckets.pop(client, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - since) * self._rate)
        self._buckets[client] = (max(0.0, tokens - 1) if tokens >= 1 else tokens, now)
        if len(self._buckets) > self.CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            seconds = max(1, math.ceil((1 - tokens) / self._rate))
            raise ServeError(
                f"more than {self._rate:g} requests a second from one address",
                do=f"wait {seconds} s and send fewer at a time",
                more=MORE,
                status=429,
                retry_after=seconds,
            )


def busy(what: str) -> ServeError:
    """Return the refusal of a server that has no room now."""
    return ServeError(
        f"the server is busy: {what}", do="send the request again after a second", more=MORE, status=503, retry_after=1
    )
