"""Work side by side: processes, each with its own models and its share of the cores, that take the next step.

Between its many small operations a small model leaves cores idle; several attacks at once do not. Knows nothing of
attacks: a worker is prepared once by a function and then given names. Torch is imported late, so that loading ahead
begins at once.
"""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.forkserver
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from trainer.errors import WorkerError

Result = TypeVar("Result")
_NO_MAPPED_BLOCKS, _TRIM_FROM = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
_FORKS = sys.platform == "linux"  # elsewhere a fork is not safe, or not there
_work: Callable[[str], Any] | None = None
"""What this worker does with a name."""


def load_ahead(module: str) -> None:
    """Import a module, beside what this process does, in the one that workers will be forked from."""
    if _FORKS:
        _context().set_forkserver_preload([module])
        multiprocessing.forkserver.ensure_running()


def _context() -> BaseContext:
    """Workers start from a process that has computed nothing, for one with threads cannot be forked."""
    return multiprocessing.get_context("forkserver" if _FORKS else "spawn")


def side_by_side(
    prepare: Callable[..., Callable[[str], Result]], arguments: Sequence[Any], names: Sequence[str], workers: int
) -> Iterator[tuple[str, Result]]:
    """Each name with what became of it, as it is done; they are begun in their order.

    Args:
        prepare: a function of a module, called once in each worker; what it returns is called with the names.
        arguments: of `prepare`.
        names: the work.
        workers: how many processes; they share the cores that this one computes on.

    Raises:
        WorkerError: a worker was killed.
    """
    import torch

    threads = max(1, torch.get_num_threads() // workers)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, _context(), initializer=_begin, initargs=(threads, prepare, arguments))
    try:
        futures = {pool.submit(_do, name): name for name in names}
        for done in as_completed(futures):
            yield futures[done], done.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed, most likely for want of memory; give fewer by --workers, 1 at the least"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()


def _begin(threads: int, prepare: Callable[..., Callable[[str], Any]], arguments: Sequence[Any]) -> None:
    import torch

    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    torch.set_num_threads(threads)
    _keep_memory()
    _work = prepare(*arguments)


def _keep_memory() -> None:
    """Keep what was freed, where the C library can: giving it back and asking anew costs some 5 % of small models."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_NO_MAPPED_BLOCKS, 0)
        library.mallopt(_TRIM_FROM, 2**30)


def _do(name: str) -> Any:
    assert _work is not None, "a worker is prepared before it works"
    return _work(name)
