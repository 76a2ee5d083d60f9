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

LOST = 1.0
"""Seconds after which a signal whose exception has not ended the work is taken for lost: libraries swallow what is raised
where they look something up or clear away.
"""

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises, so that whatever sees to an interruption sees to it too."""


class _Signals:
    """What came: when the first SIGTERM did; when an exception was last raised for a signal, and whether for SIGTERM."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.raised: float | None = None
        self.terminated = False

    def echoes(self) -> bool:
        """Whether another SIGTERM, now, is the first one's echo. Takes note of the first."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
            return False
        return now - self.first < ECHO

    def stop(self, *, terminated: bool) -> None:
        """Raise what the signal means."""
        self.raised, self.terminated = time.monotonic(), terminated
        raise Terminated if terminated else KeyboardInterrupt


_signals = _Signals()


def listen() -> None:
    """From now on SIGTERM stops this process as Ctrl-C does, and a second one at once. To be called by the main thread.

    Where whoever started the process has a signal ignored, it stays so.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what `signal` calls with)
    _signals.stop(terminated=False)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what `signal` calls with)
    known = _signals.first is not None
    if _signals.echoes():
        return
    if known:
        os._exit(TERMINATED)
    _signals.stop(terminated=True)


def check() -> None:
    """Raise once more what a signal raised a while ago, as the work that calls this was not stopped by it."""
    if _signals.raised is not None and time.monotonic() - _signals.raised > LOST:
        _signals.raised = None
        raise Terminated if _signals.terminated else KeyboardInterrupt


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
                _signals.echoes()

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
    try:
        with handlers_kept() as main:
            if main:
                for one in filter(lambda number: callable(signal.getsignal(number)), STOPPING):
                    signal.signal(one, lambda number, _: came.append(number))
            yield
    finally:  # also where the block ends with an error, which may be dealt with
        if came:
            signal.raise_signal(came[0])
