"""Functions for the tests of pools, in a module of their own: a worker process imports them by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pai_cli.errors import MaskError

PATIENCE = 300.0  # seconds to wait for what another process does: only one that hangs takes so long, on any machine


class UnreadableError(Exception):
    """Can be pickled, and not read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def times(factor: int, number: int) -> int:
    return factor * number


def slower_first(total: int, number: int) -> int:
    time.sleep(0.02 * (total - number))
    return number


def where(_: None, __: int) -> tuple[int, str, bool]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS", ""), "torch" in sys.modules


def faulty(_: None, number: int) -> int:
    print("a worker's word")  # must not get among the data
    if number == 1:
        raise MaskError("one: is no mask")
    if number == 2:
        raise UnreadableError(1, 2)
    return number


def dies_once(folder: Path, number: int) -> int:
    """Each number kills its worker the first time."""
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def deadly(how: str, number: int) -> int:
    if number == 3:
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleeps(folder: Path, number: int) -> int:
    (folder / f"{os.getpid()}").touch()
    time.sleep(2 * PATIENCE)
    return number


def fail_to_read() -> None:
    raise ValueError("cannot be read")


def wait_until(holds: Callable[[], bool], limit: float = PATIENCE) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def deadly_late(_: None, number: int) -> int:
    if number == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def size(_: None, item: bytes) -> int:
    """How long an item is."""
    return len(item)


def after(mark: Path, _: int) -> int:
    """Which process did it, once there is a mark."""
    wait_until(mark.exists)
    return os.getpid()


def deadly_first(_: None, number: int) -> int:
    if number == 0:
        os._exit(7)
    return number
