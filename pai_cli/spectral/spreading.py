"""How the engine's work is spread over cores: it is told by whom, and does not ask what machine this is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


class Spread(Protocol):
    """Who works for the engine."""

    def __call__(self, function: Callable[[Item], Found], items: Iterable[Item]) -> Iterable[Found]:
        """What the function returns for every item, in order; several are called at the same time, those first that were
        asked for first. Who asks need not wait before results are taken.
        """


def in_turn(function: Callable[[Item], Found], items: Iterable[Item]) -> Iterable[Found]:
    """One call after the other, in this thread."""
    return map(function, items)
