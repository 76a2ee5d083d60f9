"""Independent parts of the engine's work: one after another here, or several at a time by whoever knows the cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Each(Protocol):
    """`function` of every item, in order, perhaps of several at a time that take no more memory than there is."""

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], bytes_of: Callable[[Item], int]
    ) -> Iterable[Result]:
        """`bytes_of`: about what `function` of an item takes at its peak."""


def one_by_one(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    bytes_of: Callable[[Item], int],  # noqa: ARG001
) -> Iterable[Result]:
    """The `Each` of a single thread."""
    return map(function, items)
