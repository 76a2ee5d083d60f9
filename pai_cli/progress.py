"""How long work tells what it has done; the screen's side of it is in `display.progress`."""

from __future__ import annotations

from typing import Protocol


class Milestone(str):
    """What is going on, in a line that is worth keeping where no bar is drawn, as in the log of a job: an epoch is over."""

    __slots__ = ()


class Progress(Protocol):
    """Called as work goes on; an implementation may draw a bar, or nothing."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` steps are finished; `what` says in two or three words what is going on now."""


def told_of(part: str, what: str) -> str:
    """What goes on in a part of the work, as what goes on in all of it; a milestone stays one."""
    return type(what)(f"{part}{what}")


def of_masks(done: int, count: int, name: str) -> str:
    """How many masks of how many are done, where there are several, and the name of the one that is worked on."""
    return name if count == 1 else f"{done}/{count} masks, {name}"


def silent(done: int, total: int, what: str = "") -> None:
    """Show nothing."""
