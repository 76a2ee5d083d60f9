"""How work and the libraries below share this machine's cores with each other and with other processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
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


def cores() -> int:
    """How many cores this process may use: of a container or a job's share, not of the machine."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")  # what batch systems and users set for "this many cores"
    return max(1, min(allowed, MOST_THREADS, int(told) if told.isdecimal() and int(told) > 0 else allowed))


def mapped(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of every item, in order, a thread a core; for functions that let the interpreter go while they work.

    Items are drawn in this thread, and never more than a few ahead of the result that is waited for, so that a stream of
    large ones stays a stream. BLAS keeps to one thread meanwhile: threads of two libraries that wait for each other spin,
    and beside other work that has been seen to cost twenty times.
    """
    with one_blas_thread():
        count = cores()
        if count == 1:
            yield from map(function, items)
            return
        yield from _in_threads(function, items, count)


def _in_threads(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(count)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # those that run cannot be stopped, only waited for


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
