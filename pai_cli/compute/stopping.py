"""Ctrl-C, the SIGTERM that Slurm, systemd, `docker stop` and `torchrun` send first, and the SIGHUP of a terminal that is
closed: all stop what is going on, and what is finished is kept.

The command line asks for it with `listen`; a program that uses the library keeps its own way, except while it trains.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT  # exit status, as shells count

ECHO = 1.0
"""Seconds in which a second signal is the first one's echo: `timeout` sends two, and of a Ctrl-C under `torchrun` the
terminal and `torchrun` one each.
"""

LOST = 1.0
"""Seconds after which a signal whose exception has not ended the work is taken for lost: libraries swallow what is raised
where they look something up or clear away.
"""

SOON = 0.05
"""Seconds after which a signal whose exception Python itself could not raise is raised again."""

TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that do not come from Ctrl-C; Windows has no SIGHUP."""
STOPPING = (signal.SIGINT, *TERMINATING)


class Terminated(KeyboardInterrupt):
    """What SIGTERM and SIGHUP, its `number`, raise, so that whatever sees to an interruption sees to them too."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def _error_of(number: int) -> KeyboardInterrupt:
    """What a signal means."""
    return Terminated(number) if number in TERMINATING else KeyboardInterrupt()


class _Signals:
    """What came: when the first SIGTERM or SIGHUP did; when an exception was last raised for a signal, and for which."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.raised: float | None = None
        self.number: int = signal.SIGINT

    def echoes(self) -> bool:
        """Whether another SIGTERM or SIGHUP, now, is the first one's echo. Takes note of the first."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
            return False
        return now - self.first < ECHO

    def stop(self, number: int) -> None:
        """Raise what the signal means."""
        self.raised, self.number = time.monotonic(), number
        raise _error_of(number)


_signals = _Signals()
_terminals: list[int] = []
_last: list[Callable[[], None]] = []


def listen() -> None:
    """From now on SIGTERM and SIGHUP stop this process as Ctrl-C does, and a second one at once. To be called by the main
    thread.

    Where whoever started the process has a signal ignored, as `nohup` does, it stays so.
    """
    _terminals[:] = filter(os.isatty, (1, 2))
    for number in TERMINATING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _pass_over


def _pass_over(failed: sys.UnraisableHookArgs) -> None:
    """Say nothing of what Python cannot raise once a signal came: the person has asked for the end. An interruption that was
    lost so, as where Python clears away what it imported, is raised again in a moment, also out of a wait for a file.
    """
    if _signals.raised is None:
        sys.__unraisablehook__(failed)
    elif issubclass(failed.exc_type, KeyboardInterrupt) and hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, SOON)


def _again(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what `signal` calls with)
    _signals.stop(_signals.number)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what `signal` calls with)
    _signals.stop(number)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what `signal` calls with)
    _leave_terminals()
    known = _signals.first is not None
    if _signals.echoes():
        return
    if known:
        leave(128 + number)
    _signals.stop(number)


def _leave_terminals() -> None:
    """Let what is said go nowhere where the terminal it was for is closed: to write there fails, and would end the process
    before it has kept what it has.
    """
    for descriptor in _terminals:
        if not os.isatty(descriptor):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def at_the_end(tidy: Callable[[], None]) -> Callable[[], None]:
    """Have this called, once or more, at the end of the process, whether Python's own or `leave`."""
    _last.append(tidy)
    return atexit.register(tidy)


def tidy_up() -> None:
    """What is to be done at the end: for a process that ends without Python's own end."""
    for tidy in _last:
        tidy()


def leave(status: int) -> NoReturn:
    """End now, whatever is still at work."""
    tidy_up()
    os._exit(status)


def check() -> None:
    """Raise once more what a signal raised a while ago, as the work that calls this was not stopped by it."""
    if _signals.raised is not None and time.monotonic() - _signals.raised > LOST:
        _signals.raised = None
        raise _error_of(_signals.number)


def status(error: KeyboardInterrupt) -> int:
    """The exit status of a process that this interruption ends."""
    return 128 + error.number if isinstance(error, Terminated) else INTERRUPTED


def behind(error: Exception) -> KeyboardInterrupt | None:
    """The interruption that an error was made of, as Python does of one in the midst of making a class; None for others."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause


def status_of_last() -> int:
    """The exit status after the last signal that raised, where a library takes each for Ctrl-C."""
    return 128 + _signals.number


def told(error: KeyboardInterrupt) -> str:
    """What to say of it."""
    return f"interrupted by {signal.Signals(error.number).name}" if isinstance(error, Terminated) else "interrupted"


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
        self._number: int = signal.SIGINT

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (what `signal` calls with)
        """Take note; asked a second time, stop at once."""
        if self.asked and time.monotonic() - self._when >= ECHO:
            raise self.error(terminated=self.terminated)
        _leave_terminals()
        if not self.asked:
            self.asked, self._when, self._number = True, time.monotonic(), number
            if self.terminated:
                _signals.echoes()

    @property
    def terminated(self) -> bool:
        """Whether it was asked by SIGTERM or SIGHUP."""
        return self._number in TERMINATING

    def error(self, *, terminated: bool) -> KeyboardInterrupt:
        """What to raise, once all is kept; `terminated`: whether one of several processes was asked so."""
        return _error_of(self._number if self.terminated or not terminated else signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, the first signal only sets `asked`; one that is ignored stays so, and a SIGHUP that a program hears itself.

    Outside the main thread, where signals never arrive, nothing changes.
    """
    interruption = Interruption()
    with handlers_kept() as main:
        if main:
            for number in STOPPING:
                if _stops(number):
                    signal.signal(number, interruption)
        yield interruption


def _stops(number: int) -> bool:
    """Whether a signal asks this process to stop. SIGHUP tells many a program to read its settings anew."""
    handler = signal.getsignal(number)
    if number in (signal.SIGINT, signal.SIGTERM):
        return handler is not signal.SIG_IGN
    return handler in (signal.SIG_DFL, _terminate)


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
