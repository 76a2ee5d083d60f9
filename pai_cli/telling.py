"""What is said beside an answer: a note on what was taken for what, a warning of what may be wrong.

The command line shows each in a line on standard error. In a program notes go to the logger `pai`, and warnings are
Python's, of the class `PaiWarning`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pai_cli.printable import as_line
from pai_cli.spelling import for_python

Say = Callable[[str], object]


class PaiWarning(UserWarning):
    """Something that may be wrong with what was asked for, or with what came of it."""


@dataclass(frozen=True)
class _Listener:
    note: Say
    warn: Say


def _log(text: str) -> None:
    logging.getLogger("pai").info("%s", as_line(for_python(text)))


def _warn(text: str) -> None:
    warnings.warn(as_line(for_python(text)), PaiWarning, stacklevel=4)


_listener = _Listener(_log, _warn)


def note(text: str) -> None:
    """Say one line that is worth knowing."""
    _listener.note(text)


def warn(text: str) -> None:
    """Say one line about what may be wrong."""
    _listener.warn(text)


@contextmanager
def heard_by(note: Say, warn: Say) -> Iterator[None]:
    """Within the block, lines go to these two instead."""
    global _listener  # noqa: PLW0603  one process has one person before it
    before, _listener = _listener, _Listener(note, warn)
    try:
        yield
    finally:
        _listener = before
