"""What a pool is: workers that pieces of work are given to; and the one whose only worker is this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from pai_cli.errors import WorkerLostError

Common = TypeVar("Common")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of one piece: its value, or the error that stands in its place.

    `error` is what the function raised, a `PaiError` as itself; or `WorkerLostError` when the piece's worker died, and
    those that tried it again.
    """

    value: Result | None
    error: Exception | None = None

    def get(self) -> Result:
        """The value; raises the error when that is what came."""
        if self.error is not None:
            raise self.error
        return cast("Result", self.value)

    def get_of(self, name: str) -> Result:
        """The value; raises the error, that of a worker that died with the piece's name before it."""
        if isinstance(self.error, WorkerLostError):
            raise WorkerLostError(f"{name}: {self.error.text}") from self.error
        return self.get()


class Pool(Protocol):
    """Workers that pieces are given to."""

    @property
    def workers(self) -> int:
        """How many pieces can run at once."""

    @property
    def shares_files(self) -> bool:
        """Whether a path means the same to the workers as it does here."""

    def map(
        self,
        function: Callable[[Common, Item], Result],
        common: Common,
        items: Iterable[Item | Outcome[Result]],
        here: Callable[[Item], Outcome[Result] | None] | None = None,
        /,
    ) -> Iterator[Outcome[Result]]:
        """`function(common, item)` for every item; outcomes in the order of the items.

        Items are drawn in this process as they are needed, only a few ahead of the outcome waited for. `function` stands
        in a module, and it, `common` and the items can be pickled; `common` travels to each worker once. Outcomes do not
        depend on where and beside what a piece runs, except that a library's threads may round otherwise in other
        numbers: what must be equal to the bit sets its threads in `function`. An item that is an `Outcome` already is no
        work, and comes out in its place.

        `here`: does a short piece in this process, where it would only wait for others, and is then one of the workers; from
        the first piece on for which it gives None, this process only waits. Pools whose workers are elsewhere do without.
        """


class Here:
    """The pool of one worker which is this process, its threads as they are."""

    workers = 1
    shares_files = True

    def map(
        self,
        function: Callable[[Common, Item], Result],
        common: Common,
        items: Iterable[Item | Outcome[Result]],
        _here: object = None,
        /,
    ) -> Iterator[Outcome[Result]]:
        """One piece after the other, each begun when its outcome is asked for."""
        for item in items:
            yield item if isinstance(item, Outcome) else attempt(function, common, item)


def attempt(function: Callable[[Common, Item], Result], common: Common, item: Item) -> Outcome[Result]:
    """One piece, done in this process."""
    try:
        return Outcome(function(common, item))
    except Exception as error:  # the caller sees what it is
        return Outcome(None, error)
