"""How work and the libraries below share this machine's cores with each other and with other processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pai_cli.spectral.parameters import from_digits
from pai_cli.spectral.spreading import Spread

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 16  # of one command; a study uses processes

SHORT_SPIN = "1000"  # turns of GNU OpenMP's waiting loop, a few microseconds, before a thread sleeps


def settle() -> None:
    """Let threads that wait go to sleep soon. To be called before torch is imported; what the user has set stays.

    GNU OpenMP's threads spin while they wait for each other, and beside other work each steals the time the other needs.
    Measured on two cores, SynFlow on ResNet-20: alone 1.4 s spinning and 1.8 s with short spins; beside two busy processes
    10 s and 3.5 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SHORT_SPIN)


_left: list[Future[Any]] = []  # work that ran on when a fault or an interruption ended the rest


def still_working() -> bool:
    """Whether work goes on that nobody waits for: it cannot be stopped, and Python would wait for it at its end."""
    return any(future.running() for future in _left)


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What OpenMP, and with it torch, and the BLAS libraries read once, when they are loaded."""


def cores() -> int:
    """How many cores the threads of this process may use."""
    return min(all_cores(), MOST_THREADS)


def all_cores() -> int:
    """How many cores there are for this command's processes: of a container or a job's share, not of the machine."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")  # what batch systems and users set for "this many cores"
    return max(1, min(allowed, from_digits(told) or allowed))


def threads_each(processes: int) -> dict[str, str]:
    """Environment variables for each of so many processes, which give it its share of the cores."""
    return dict.fromkeys(THREAD_VARIABLES, str(max(1, all_cores() // processes)))


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 1
) -> Generator[Result, None, None]:
    """`function` of every item, in order, a thread a core; for functions that let the interpreter go while they work.

    Items are drawn in this thread, `ahead` a core beyond the result that is waited for (several where dealing with a
    result takes this thread as long as making it took another). This thread only waits, so that it can be interrupted. BLAS
    keeps to one thread meanwhile: threads of two libraries that wait for each other spin, and beside other work that has
    been seen to cost twenty times.
    """
    with one_blas_thread():
        yield from _in_threads(function, items, ahead * cores())


@contextmanager
def spread_over_cores() -> Iterator[Spread]:
    """A thread a core for as long as the block lasts, for items that are all there: each begins the next that is left.

    This thread does none of them, so that it can be interrupted; BLAS keeps to one thread meanwhile.
    """
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(cores())
    begun: list[Future[Any]] = []

    def spread(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        own = [pool.submit(function, item) for item in items]
        begun[:] = [*(future for future in begun if not future.done()), *own]
        return _results(own)

    finished = False
    try:
        with one_blas_thread():
            yield spread
        finished = True
    finally:
        _end(pool, begun, finished)


def _results(own: Sequence[Future[Result]]) -> Iterator[Result]:
    """In order; what a fault leaves is not begun."""
    try:
        for future in own:
            yield future.result()
    finally:
        for future in own:
            future.cancel()


def _in_threads(function: Callable[[Item], Result], items: Iterable[Item], most: int) -> Iterator[Result]:
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(cores())
    finished = False
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        finished = True
    finally:
        _end(pool, waiting, finished)


def _end(pool: ThreadPoolExecutor, begun: Iterable[Future[Any]], finished: bool) -> None:
    """No thread begins more; those that work on are waited for where nothing went wrong."""
    pool.shutdown(wait=finished, cancel_futures=True)
    _left[:] = [future for future in (*_left, *begun) if future.running()]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread. The limit is the whole process's, so it is set around all the work, not around each piece."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Looks once for the libraries that are loaded, which takes longer than a small layer."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
