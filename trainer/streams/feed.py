"""Batches made ahead of the loop, in processes of their own, so that a step never waits on data.

The order of batches is the loop's: each is named by its stream and number, so a worker that comes first changes
nothing. `waited_s` measures what the loop lost.
"""

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Protocol, Self

from trainer.errors import FeedError
from trainer.streams.batch import Batch


class Stream(Protocol):
    """A source of numbered batches."""

    @property
    def name(self) -> str:
        """Its name, as the config has it."""

    def batch(self, number: int, share: int = 0, shares: int = 1) -> Batch:
        """Part `share` of batch `number`."""


Parts = tuple[Batch, ...]
_streams: Mapping[str, Stream] = {}  # a worker's own, set once when it starts


def _start(streams: Mapping[str, Stream]) -> None:
    global _streams
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to us too; only the loop knows what to do
    _streams = streams


def _make(name: str, number: int, shares: Sequence[int], of: int) -> Parts:
    return tuple(_streams[name].batch(number, share, of) for share in shares)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Around the start of a worker: it inherits that SIGINT waits, so none can end it while it imports."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise FeedError(
            "a process that prepares batches was ended from outside, most likely by the kernel for want of memory: "
            "lower workers or the streams' documents, or close other programs"
        ) from error


class Feed:
    """Hands out the batches of one step after the other; use as a context manager.

    `shares` are this process's parts of each batch, of `of` parts in all (processes times accumulation).
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        *,
        shares: Sequence[int] = (0,),
        of: int = 1,
        workers: int = 1,
        prefetch: int = 4,
    ) -> None:
        self._streams = streams
        self._shares, self._of, self._prefetch = tuple(shares), of, prefetch
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(streams,))
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers; what they were making is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def steps(self, names: Sequence[str], first: int, last: int) -> "Steps":
        """The batches of steps `first` to `last` - 1, one dictionary a step."""
        return Steps(self, tuple(names), first, last)

    def submit(self, names: Sequence[str], number: int) -> dict[str, Future[Parts]] | None:
        """Ask the workers for a step's batches; None where there are no workers.

        Raises:
            FeedError: a worker was ended from outside.
        """
        pool = self._pool
        if pool is None:
            return None
        with _translating(), _without_interrupts():  # the pool starts its workers when it is asked
            return {name: pool.submit(_make, name, number, self._shares, self._of) for name in names}

    def make(self, names: Sequence[str], number: int) -> dict[str, Parts]:
        """Make a step's batches here and now."""
        return {
            name: tuple(self._streams[name].batch(number, share, self._of) for share in self._shares) for name in names
        }

    @property
    def prefetch(self) -> int:
        """How many steps are kept ready."""
        return self._prefetch


class Steps:
    """An iterator over steps that keeps the feed's workers busy."""

    def __init__(self, feed: Feed, names: Sequence[str], first: int, last: int) -> None:
        self._feed, self._names, self._next, self._last = feed, names, first, last
        self._asked = first
        self._ready: deque[dict[str, Future[Parts]]] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Parts]:
        if self._next >= self._last:
            raise StopIteration
        started = time.perf_counter()
        while self._asked < min(self._last, self._next + self._feed.prefetch):
            asked = self._feed.submit(self._names, self._asked)
            if asked is None:
                break
            self._ready.append(asked)
            self._asked += 1
        if self._ready:
            with _translating():
                batches = {name: future.result() for name, future in self._ready.popleft().items()}
        else:
            batches = self._feed.make(self._names, self._next)
        self._next += 1
        self._feed.waited_s += time.perf_counter() - started
        return batches
