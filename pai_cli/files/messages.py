"""Words that many messages need."""

from __future__ import annotations

from collections.abc import Iterable

from pai_cli.errors import PaiError
from pai_cli.printable import first_line


def one_line(e: BaseException) -> str:
    """An exception's class and the first line of its text, without the full stop."""
    if isinstance(e, PaiError):
        return f"{type(e).__name__}: {e.text}"
    line = first_line(str(e))
    return f"{type(e).__name__}: {line}" if line else type(e).__name__


def all_names(names: Iterable[str]) -> str:
    """All of at least one: "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def some_names(names: Iterable[str], shown: int = 3) -> str:
    """The first names with commas between them, and how many more there are: "a, b, c and 4 more"."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
