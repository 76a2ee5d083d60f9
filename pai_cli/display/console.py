"""The two streams: data on standard output, everything said to a person on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns for a table that goes to a file or a pipe, where nothing should be cut


def output() -> Console:
    """Standard output. Colour only on a terminal without NO_COLOR (rich sees to both); wide where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    return Console(file=sys.stdout, highlight=False, width=width, markup=False, emoji=False)


def errors() -> Console:
    """Standard error."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def printable(text: str) -> str:
    """The text with control characters spelled out: names come from files, and may not move the cursor or end a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def note(text: str) -> None:
    """Say one line to the person, apart from the data."""
    _say(f"pai: {text}")


def warn(text: str) -> None:
    """Say one line about something that may be wrong."""
    _say(f"pai: warning: {text}")


def fail_line(text: str) -> None:
    """Say one line about what could not be done."""
    _say(f"pai: error: {text}")


def _say(line: str) -> None:
    print(printable(line).encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
