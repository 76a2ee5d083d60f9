"""The two streams: data on standard output, everything said to a person on standard error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from pai_cli.printable import as_line
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from rich.console import Console

    from pai_cli.errors import PaiError

WIDE = 200  # columns for a table that goes to a file or a pipe, where nothing should be cut


def no_terminal(stream: TextIO) -> bool:
    """Whether a stream is certainly no terminal, nor to be written to as one.

    `rich`, which decides the rest, takes longer to import than a table to write.
    """
    return not (stream.isatty() or os.environ.get("FORCE_COLOR") or os.environ.get("TTY_COMPATIBLE"))


def errors_have_no_terminal() -> bool:
    """Whether what is said to the person certainly reaches no terminal."""
    return no_terminal(sys.stderr)


@dataclass(frozen=True)
class Paper:
    """A stream that is no terminal, as `rich`'s consoles tell of themselves."""

    file: TextIO
    width: int = WIDE
    is_terminal = False

    @property
    def encoding(self) -> str:
        """That of the stream, in small letters."""
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def console(self) -> Console:
        """The console of this stream, for what only `rich` can do."""
        from rich.console import Console

        return Console(file=self.file, highlight=False, width=self.width, markup=False, emoji=False, no_color=True)


def output() -> Console | Paper:
    """Standard output. Colour only on a terminal without NO_COLOR (rich sees to both); wide where there is none."""
    if no_terminal(sys.stdout):
        return Paper(sys.stdout)
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    return Console(file=sys.stdout, highlight=False, width=width, markup=False, emoji=False)


def errors() -> Console:
    """Standard error."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show_line(text: str = "") -> None:
    """One line of what a person asked for, on standard output."""
    print(as_line(for_shell(text)))


def show_lines(text: str, *, wrong: bool = False) -> None:
    """Several lines of our own, which hold nothing that a file or a person wrote; on standard error where they are not what
    was asked for.
    """
    print(text, file=sys.stderr if wrong else sys.stdout)


def note(text: str) -> None:
    """Say one line to the person, apart from the data."""
    _say("pai: ", text)


def warn(text: str) -> None:
    """Say one line about something that may be wrong."""
    _say("pai: warning: ", text)


def warn_of(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Say a library's warning in one line, as `warnings.showwarning` is called; where in the library is left out."""
    warn(f"{category.__name__}: {message}")


def fail_line(text: str) -> None:
    """Say one line about what could not be done."""
    _say("pai: error: ", text)


def fail(error: PaiError | None) -> int:
    """Say what could not be done, if anything, and give how many things that were: 0 or 1."""
    if error is None:
        return 0
    fail_line(error.text)
    return 1


def status_of(errors: Sequence[PaiError], among: int) -> int:
    """The exit status where of so many masks some failed: wrong usage where that is what every one failed by."""
    if not errors:
        return 0
    return errors[0].status if len(errors) == among and len({one.status for one in errors}) == 1 else 1


def show_traceback() -> None:
    """Where the exception that is being handled came from, as Python tells it."""
    for line in traceback.format_exc().splitlines():
        _say("", line)


def _say(kind: str, text: str) -> None:
    print(f"{kind}{as_line(for_shell(text))}", file=sys.stderr)
