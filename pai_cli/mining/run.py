"""Mining a collection: the subgraphs as they are found, until all are or a limit is reached."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pai_cli.mining.collection import Collection, Indices
from pai_cli.mining.parts import Part, parts_of
from pai_cli.mining.search import Wanted, maximal
from pai_cli.progress import Progress, silent
from pai_cli.spelling import option

LOOK = 64
"""Steps of the search between two looks at the clock."""


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A maximal frequent connected subgraph.

    `number`: in the order of finding, from 1. `size`: how many edges. `graphs`: the set of those that hold it, an integer
    with bit g set for graph g.
    """

    number: int
    size: int
    graphs: int
    part: Part
    classes: int

    @property
    def support(self) -> int:
        """How many graphs hold it."""
        return self.graphs.bit_count()

    def edges(self) -> Indices:
        """Its edges, indices into the collection, in order."""
        return self.part.edges_of(self.classes)


@dataclass(frozen=True)
class Limits:
    """When to stop before all is found: after so many subgraphs, or so many seconds; None for never."""

    results: int | None = None
    seconds: float | None = None


@dataclass
class Mining:
    """One run: iterate over it for the subgraphs; `stopped` then says which limit ended it, "" for none."""

    collection: Collection
    wanted: Wanted
    limits: Limits = field(default_factory=Limits)
    progress: Progress = silent
    found: int = 0
    stopped: str = ""

    def __iter__(self) -> Iterator[Subgraph]:
        """Every maximal frequent connected subgraph once, in the same order each time. Raises `MiningError`."""
        end = None if self.limits.seconds is None else time.monotonic() + self.limits.seconds
        parts = list(parts_of(self.collection, self.wanted.support, self.wanted.least))
        for done, part in enumerate(parts):
            self.progress(done, len(parts), f"{self.found:,} found")
            for steps, found in enumerate(maximal(part, self.wanted)):
                if steps % LOOK == 0:
                    if end is not None and time.monotonic() > end:
                        self.stopped = option("timeout", f"{self.limits.seconds:g}")
                        return
                    self.progress(done, len(parts), f"{self.found:,} found")
                if found is None:
                    continue
                if self.found == self.limits.results:
                    self.stopped = option("max_results", self.limits.results)
                    return
                self.found += 1
                yield Subgraph(self.found, part.size(found[0]), found[1], part, found[0])
        self.progress(1, 1)
