"""How much at a time: a rate and a number of running requests for each key, and the places and the queue for all.

Values and counters of one event loop; nothing here waits on a clock of its own but `Gate`, which waits for a place.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from service.errors import Busy, RateExceeded

_REMEMBERED_KEYS = 10_000


@dataclass(slots=True)
class _Bucket:
    """A key's allowance: it fills by `rate` a second up to `size`, a request takes one."""

    size: float
    rate_per_s: float
    level: float
    filled_at_s: float
    running: int = 0


class KeyLimit:
    """Holds each key to its rate (a token bucket of one minute's requests) and to its number of running requests."""

    def __init__(
        self, requests_per_minute: int, concurrent: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests_per_minute = requests_per_minute
        self._concurrent = concurrent
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @contextmanager
    def running(
        self, key_id: str, *, requests_per_minute: int | None = None, concurrent: int | None = None
    ) -> Iterator[None]:
        """Count one request of the key while the context is open.

        Raises:
            RateExceeded: the key has used up its allowance, or has as many requests running as it may.
        """
        bucket = self._bucket(key_id, requests_per_minute or self._requests_per_minute)
        most = concurrent or self._concurrent
        if bucket.running >= most:
            raise RateExceeded(
                f"this key has {bucket.running} requests running and may have {most}; wait for one to end",
                retry_after_s=1.0,
            )
        if bucket.level < 1:
            raise RateExceeded(
                f"this key may make {bucket.size:.0f} requests a minute and has made them; wait",
                retry_after_s=math.ceil((1 - bucket.level) / bucket.rate_per_s),
            )
        bucket.level -= 1
        bucket.running += 1
        try:
            yield
        finally:
            bucket.running -= 1

    def _bucket(self, key_id: str, per_minute: int) -> _Bucket:
        now_s = self._clock()
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.size != per_minute:
            running = 0 if bucket is None else bucket.running
            bucket = self._buckets[key_id] = _Bucket(per_minute, per_minute / 60, per_minute, now_s, running)
            while len(self._buckets) > _REMEMBERED_KEYS:
                self._buckets.popitem(last=False)
        bucket.level = min(bucket.size, bucket.level + (now_s - bucket.filled_at_s) * bucket.rate_per_s)
        bucket.filled_at_s = now_s
        return bucket


class Gate:
    """`places` answers are made at a time, `waiting` questions queue in their order, the next is turned away."""

    def __init__(self, places: int, waiting: int, wait_s: float) -> None:
        self._free = asyncio.Semaphore(places)
        self._most_waiting = waiting
        self._wait_s = wait_s
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        """Hold a place while the context is open; wait for one in the queue.

        Raises:
            Busy: the queue is full, or no place came free in time.
        """
        if self._free.locked():
            if self.waiting >= self._most_waiting:
                raise Busy(
                    f"{self.running} answers are being made and {self.waiting} questions wait; try again later",
                    retry_after_s=1.0,
                )
            await self._wait()
        else:
            await self._free.acquire()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise Busy(f"no place came free within {self._wait_s:g} s; try again later", retry_after_s=5.0) from error
        finally:
            self.waiting -= 1
