"""How a program asks to see how far its work is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pai_cli.progress import Progress, silent

Wanted = Progress | bool | None
"""True for a bar on standard error, a callable that is given (done, total, what), or nothing."""


@contextmanager
def shown_by(wanted: Wanted, title: str) -> Iterator[Progress]:
    """What work tells how far it is, within the block."""
    if wanted is True:
        from pai_cli.display.progress import progress_bar

        with progress_bar(title) as bar:
            yield bar
    else:
        yield wanted or silent
