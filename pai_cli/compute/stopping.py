"""Ctrl-C, and the SIGTERM that Slurm, systemd, `docker stop` and `torchrun` send first: both stop what is going on, and what
is finished is kept.

The command line asks for it with `listen`; a program that uses the library keeps its own way, except while it trains.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit status, as shells count: 128 and the signal

ECHO = 1.0
"""Seconds in which a second signal is the first one's echo: `timeout` sends two, and of a Ctrl-C under `torchrun` the
terminal and `torchrun` one each.
"""

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises, so that whatever sees to an interruption sees to it too."""


class _Terminations:
    """The SIGTERMs that came: how many were not an echo, and when the first did."""

    def __init__(self) -> None:
        self.first: float | None = None

    def echoes(self) -> bool:
        """Whether another one, now, is the first one's echo. Takes note of the first."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
            return False
        return now - self.first < ECHO


_terminations = _Terminations()


def listen() -> None:
    """From now on SIGTERM stops this process as Ctrl-C does, and a second one at once. To be called by the main thread.

    Where whoever started the process has it ignored, it stays so.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what `signal` calls with)
    known = _terminations.first is not None
    if _terminations.echoes():
        return
    if known:
        os._exit(TERMINATED)
    raise Terminated


def status(error: KeyboardInterrupt) -> int:
    """The exit status of a process that this interruption ends."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


@contextmanager
def handlers_kept() -> Iterator[bool]:
    """Whether this is the main thread, where alone signals arrive; whatever is set for them inside is undone.

    Also by a library, at its import: `dask_jobqueue` ends the process with status 0 on Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield True
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that is not Python's own cannot be set by it
                signal.signal(number, handler)


class Interruption:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0
        self._number = signal.SIGINT

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (what `signal` calls with)
        """Take note; asked a second time, stop at once."""
        if self.asked and time.monotonic() - self._when >= ECHO:
            raise self.error(terminated=self.terminated)
        if not self.asked:
            self.asked, self._when, self._number = True, time.monotonic(), signal.Signals(number)
            if number == signal.SIGTERM:
                _terminations.echoes()

    @property
    def terminated(self) -> bool:
        """Whether it was asked by SIGTERM."""
        return self._number is signal.SIGTERM

    @staticmethod
    def error(*, terminated: bool) -> KeyboardInterrupt:
        """What to raise, once all is kept."""
        return Terminated() if terminated else KeyboardInterrupt()


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, the first signal only sets `asked`. Outside the main thread, where signals never arrive, nothing changes."""
    interruption = Interruption()
    with handlers_kept() as main:
        if main:
            for number in STOPPING:
                signal.signal(number, interruption)
        yield interruption


@contextmanager
def undisturbed() -> Iterator[None]:
    """A signal that would raise waits for the end of the block, so that nothing is cut in two."""
    came: list[int] = []
    with handlers_kept() as main:
        if main:
            for one in filter(lambda number: callable(signal.getsignal(number)), STOPPING):
                signal.signal(one, lambda number, _: came.append(number))
        yield
    if came:
        signal.raise_signal(came[0])
