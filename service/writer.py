"""The one thread that writes: changes of the store queue here, so that the event loop never waits for a disk.

Also remembers, for a day, what came of a request with an Idempotency-Key, so that a client which repeats it gets the
first outcome again. The memory ends with the process; what it guards is safe to repeat then too, for a change that
changes nothing makes no generation.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import QuestionRefused

T = TypeVar("T")
_REMEMBERED = 10_000
_REMEMBERED_S = 24 * 3600.0


class Writer:
    """Runs writes one after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on the thread. A caller who gives up does not stop it: a change is made whole or not at all."""
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self.waiting -= 1

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.to_thread(self._thread.shutdown, wait=True)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    fingerprint: str
    outcome: "asyncio.Future[T]"
    at_s: float


class Replays(Generic[T]):
    """Outcomes by idempotency key. What failed is forgotten, for it may succeed the next time."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry[T]] = OrderedDict()

    async def once(
        self, author: str, key: str, fingerprint: str, work: Callable[[], "asyncio.Future[T]"]
    ) -> tuple[T, bool]:
        """Give what `work` gives, and whether it was done before; a second caller meanwhile waits for the first.

        Raises:
            QuestionRefused: the key was used for another request.
        """
        self._forget_old()
        entry = self._entries.get((author, key))
        if entry is not None:
            if entry.fingerprint != fingerprint:
                raise QuestionRefused(
                    "this Idempotency-Key was used for another request; take a fresh one for each",
                    param="Idempotency-Key",
                )
            return await asyncio.shield(entry.outcome), True
        outcome = work()
        self._entries[author, key] = _Entry(fingerprint, outcome, self._clock())

        def forget_failed(done: "asyncio.Future[T]") -> None:
            if done.cancelled() or done.exception() is not None:
                self._entries.pop((author, key), None)

        outcome.add_done_callback(forget_failed)
        return await asyncio.shield(outcome), False

    def _forget_old(self) -> None:
        oldest_s = self._clock() - _REMEMBERED_S
        while self._entries and (
            len(self._entries) > _REMEMBERED or next(iter(self._entries.values())).at_s < oldest_s
        ):
            self._entries.popitem(last=False)
