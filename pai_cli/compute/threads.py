"""How the libraries below share this machine's cores with each other and with other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

LARGE_SIDE = 1024  # of a matrix's smaller side: from here on a second BLAS thread earns more than it costs


SHORT_SPIN = "1000"  # turns of GNU OpenMP's waiting loop, a few microseconds, before a thread sleeps


def settle() -> None:
    """Let threads that wait go to sleep soon. To be called before torch is imported; what the user has set stays.

    GNU OpenMP's threads spin while they wait for each other, and beside other work each steals the time the other needs.
    Measured on two cores, SynFlow on ResNet-20: alone 1.4 s spinning and 1.8 s with short spins; beside two busy processes
    10 s and 3.5 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SHORT_SPIN)


@contextmanager
def blas_threads_for(side: int) -> Iterator[None]:
    """One BLAS thread while a matrix of this smaller `side` is worked on, all of them for a large one.

    A network's mask is hundreds of small eigenproblems. All of a ResNet-34 mask's take 0.8 s with one thread as with two
    on an idle machine of two cores, and 14 s with two beside one other busy process: threads that wait for each other spin.
    """
    if side >= LARGE_SIDE:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Looks once for the libraries that are loaded, which takes longer than a small layer."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
