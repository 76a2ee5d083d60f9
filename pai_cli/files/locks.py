"""Locks on open files, of whatever system: they end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
from contextlib import suppress
from importlib import import_module
from typing import Any

fcntl: Any = None
msvcrt: Any = None
with suppress(ImportError):
    fcntl = import_module("fcntl")
with suppress(ImportError):
    msvcrt = import_module("msvcrt")  # Windows

BUSY = (errno.EACCES, errno.EDEADLK)
"""What Windows says after ten seconds of waiting for a lock."""


def open_files_can_go() -> bool:
    """Whether a file that is open can be removed, so that only its lock tells that somebody writes it. Not on Windows."""
    return fcntl is not None


def lock_now(descriptor: int) -> bool:
    """Whether the file is locked now; not where another process has locked it, or the system knows no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def wait_for_lock(descriptor: int) -> None:
    """Lock the file, whoever has it first. Raises `OSError` where that cannot be."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    while msvcrt is not None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        except OSError as error:
            if error.errno not in BUSY:
                raise
        else:
            return
