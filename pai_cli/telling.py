"""What is said beside an answer: a note on what was taken for what, a warning of what may be wrong.

The command line shows each in a line on standard error. In a program notes go to the logger `pai`, and warnings are
Python's, of the class `PaiWarning`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pai_cli.printable import as_line
from pai_cli.spelling import for_python

Say = Callable[[str], object]


PACKAGE = Path(__file__).parent


class PaiWarning(UserWarning):
    """Something that may be wrong with what was asked for, or with what came of it."""


@dataclass(frozen=True)
class _Listener:
    note: Say
    warn: Say


def _log(text: str) -> None:
    logging.getLogger("pai").info("%s", as_line(for_python(text)))


def _warn(text: str) -> None:
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(as_line(for_python(text)), PaiWarning, stacklevel=level)  # shown at the line that called `pai`


_listener = _Listener(_log, _warn)


def note(text: str) -> None:
    """Say one line that is worth knowing."""
    _listener.note(text)


def warn(text: str) -> None:
    """Say one line about what may be wrong."""
    _listener.warn(text)


class Repeated:
    """Notes on masks: what is so of many of them is said of the first, and at the end of how many more."""

    def __init__(self, say: Say = note):
        self._say = say
        self._more: dict[str, int] = {}

    def note(self, path: Path, text: str) -> None:
        """Say it of a mask, unless it has been said of another."""
        if text in self._more:
            self._more[text] += 1
        else:
            self._more[text] = 0
            self._say(f"{path}: {text}")

    def close(self) -> None:
        """After the last mask."""
        for text, more in self._more.items():
            if more:
                self._say(f"the same of {more} more mask{'s' if more > 1 else ''}: {text}")


@contextmanager
def heard_by(note: Say, warn: Say) -> Iterator[None]:
    """Within the block, lines go to these two instead."""
    global _listener  # noqa: PLW0603  one process has one person before it
    before, _listener = _listener, _Listener(note, warn)
    try:
        yield
    finally:
        _listener = before
