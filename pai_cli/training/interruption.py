"""Ctrl-C, and the SIGTERM of batch systems and `torchrun`, heard between two steps rather than in the middle of one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ECHO = 1.0
"""Seconds in which a second signal is the first one's echo: of a Ctrl-C that both the terminal and `torchrun` deliver."""


class Interruption:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (what `signal` calls with)
        """Take note; asked a second time, stop at once."""
        if self.asked and time.monotonic() - self._when >= ECHO:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._when = True, time.monotonic()


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, the first signal only sets `asked`. Outside the main thread, where signals never arrive, nothing changes."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
