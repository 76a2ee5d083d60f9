"""How the libraries below share this machine's cores with each other and with other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

LARGE_SIDE = 1024  # of a matrix's smaller side: from here on a second BLAS thread earns more than it costs


def settle() -> None:
    """Let threads that wait sleep. To be called before torch is imported; what the user has set stays.

    OpenMP's threads spin while they wait. Two prunings on the two cores of a laptop then wait for each other's
    spinning: SynFlow on ResNet-110 took 480 s beside other work instead of 19 s (2 cores, load 4.5).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def blas_threads_for(side: int) -> Iterator[None]:
    """One BLAS thread while matrices of this smaller `side` and below are worked on, all of them for large ones.

    A network's mask is hundreds of small eigenproblems. All of a ResNet-34 mask's take 0.8 s with one thread as with two
    on an idle machine of two cores, and 14 s with two beside one other busy process: threads that wait for each other spin.
    """
    if side >= LARGE_SIDE:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
