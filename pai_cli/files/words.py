"""Words that many messages need."""

from __future__ import annotations

import re
from collections.abc import Iterable


def one_line(e: BaseException) -> str:
    """An exception's class and the first line of its text, without the full stop."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(e))  # some libraries colour their messages
    lines = "".join(c for c in text if c.isprintable() or c == "\n").strip().splitlines()
    return f"{type(e).__name__}: {lines[0][:200].rstrip('. ')}" if lines else type(e).__name__


def some_names(names: Iterable[str], shown: int = 3) -> str:
    """The first names with commas between them, and how many more there are: "a, b, c and 4 more"."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
