"""Mining a collection: the subgraphs as they are found, until all are or a limit is reached."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pai_cli.mining.collection import Collection, Indices, bits
from pai_cli.mining.parts import Part, parts_of
from pai_cli.mining.search import Wanted, maximal
from pai_cli.progress import Progress, silent
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.files.tables import Record

LOOK = 64
"""Steps of the search between two looks at the clock."""


FIELDS = {
    "subgraph": "number",
    "edges": "size",
    "vertices": "vertices",
    "support": "support",
    "share": "share",
    "layers": "layers",
    "masks": "holders",
    "edge_list": "edge_names",
}
"""What the command line writes of a subgraph, and the attribute that it is."""


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A maximal frequent connected subgraph.

    `number`: in the order of finding, from 1. `size`: how many edges. `graphs`: the set of those that hold it, an integer
    with bit g set for graph g. `collection`: what was mined.
    """

    number: int
    size: int
    graphs: int
    part: Part
    classes: int
    collection: Collection

    def __repr__(self) -> str:
        return f"<Subgraph {self.number}: {self.size:,} edges, held by {self.support} of {len(self.collection.names)}>"

    @property
    def support(self) -> int:
        """How many graphs hold it."""
        return self.graphs.bit_count()

    @property
    def share(self) -> float:
        """The share of the graphs that hold it, above 0 and at most 1."""
        return self.support / len(self.collection.names)

    @property
    def holders(self) -> tuple[str, ...]:
        """The names of the graphs that hold it, in order."""
        return tuple(self.collection.names[graph] for graph in bits(self.graphs))

    @property
    def vertices(self) -> int:
        """How many vertices it has."""
        return len(np.unique(self.collection.ends[self.edges()]))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that its edges are of, in order; "graph" for a list of edges."""
        names = self.collection.group_names
        return tuple(names[group] for group in np.unique(self.collection.groups[self.edges()]))

    @property
    def edge_names(self) -> tuple[str, ...]:
        """Its edges by name, in order: `conv1.weight[2,0]`, or `a--b` of a list of edges."""
        return tuple(self.collection.labels(self.edges()))

    def to_dict(self) -> Record:
        """All of it, as the command line writes it."""
        return self.record(FIELDS)

    def record(self, fields: Iterable[str]) -> Record:
        """Some of its fields, and what no other takes: to name the edges of a large one is most of the work."""
        return {field: getattr(self, FIELDS[field]) for field in fields}

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
                yield Subgraph(self.found, part.size(found[0]), found[1], part, found[0], self.collection)
        self.progress(1, 1)
