"""How long work tells what it has done; the screen's side of it is in `display.progress`."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; an implementation may draw a bar, or nothing."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` steps are finished; `what` says in two or three words what is going on now."""


def silent(done: int, total: int, what: str = "") -> None:
    """Show nothing."""
