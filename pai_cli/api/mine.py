"""`mine`: what masks agree on."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.given import listed, named, opened
from pai_cli.api.inputs import (
    AnyPath,
    Shape,
    Source,
    maybe_path,
    open_source,
    open_weights,
    shape_of,
    source_path,
)
from pai_cli.api.masks import Mask
from pai_cli.api.plans import plan_mining, read_masks
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import check_least, takes_numpy
from pai_cli.api.unrolling import tell_on_no_path
from pai_cli.errors import UsageError
from pai_cli.files.provenance import provenance, typed
from pai_cli.mining.level import Level
from pai_cli.refusals import Idle, idle_force, idle_packed, refuse
from pai_cli.spectral.parameters import one_of
from pai_cli.spelling import for_python, option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.files.masks import Mask as Stored
    from pai_cli.files.masks import MaskToWrite
    from pai_cli.files.plan import FilePlan
    from pai_cli.mining.collection import Collection
    from pai_cli.mining.overlap import Overlap
    from pai_cli.mining.run import Limits, Subgraph
    from pai_cli.mining.run import Mining as Search
    from pai_cli.mining.search import Wanted as Sought
    from pai_cli.progress import Progress

SUPPORT = "0.8"
MIN_EDGES = 3
_NO_SEARCH = f"{{it}}: is about the search, and {option('overlap')} makes none; leave one out"
IDLE = (
    Idle(
        ("level", "weights", "output", "trust"),
        f"{{it}}: is about masks, and {option('graphs')} reads lists of edges; leave one out",
        beside=("graphs",),
    ),
    Idle(
        ("model", "input_shape"),
        f"{{it}}: says how {option('weights')} is followed; give {option('weights', 'CKPT')} too",
        without=("weights",),
    ),
    Idle(
        ("weights",),
        f"{{it}}: at {option('level', 'weight')} layers stand by themselves; leave it out",
        where=lambda call: call.level == Level.WEIGHT,
    ),
    idle_packed("output"),
    Idle(("min_edges", "max_results", "timeout"), _NO_SEARCH, beside=("overlap",)),
    Idle(("support",), _NO_SEARCH, beside=("overlap",), without=("output",)),  # it counts for a consensus too
    idle_force(f"{option('output')} too", "output", "plot"),
)


@dataclass(frozen=True)
class _Followed:
    """The network whose wiring is followed, None to go by names, as `model` with inputs of `shape`."""

    weights: Source
    model: str | None
    shape: tuple[int, ...] | None
    trust: bool


class Mining:
    """What graphs agree on. Iterating searches: each subgraph comes as it is found, anew and in the same order each time.

    `names`: of the graphs, in order. `support`: how many of them must hold a subgraph. `stopped`: which limit ended the
    latest search, "" for none.
    """

    def __init__(
        self, collection: Collection, masks: Sequence[Stored], sought: Sought, limits: Limits, *, overlap: bool
    ):
        self.collection = collection
        self.names = collection.names
        self.support = sought.support
        self._masks, self._sought, self._limits, self._overlap = masks, sought, limits, overlap
        self._progress: Wanted = None
        self._latest: Search | None = None
        self._written: MaskToWrite | None = None

    def __iter__(self) -> Iterator[Subgraph]:
        """Every maximal connected subgraph that enough graphs hold, once. Raises `MiningError`; `UsageError` of overlap."""
        with shown_by(self._progress, "mining") as progress:
            yield from self.search(progress)

    def __repr__(self) -> str:
        least = self._sought.least
        return (
            f"<Mining of {len(self.names)} graphs: subgraphs of {least} edges or more that {self.support} of them hold>"
        )

    def search(self, progress: Progress) -> Search:
        """One search, to be iterated over: it knows itself how many it `found` and what `stopped` it."""
        from pai_cli.mining.run import Mining as Search

        if self._overlap:
            raise UsageError(
                f"{option('overlap')}: the pairs alone were asked for, and no search is made; leave it out"
            )
        self._latest = Search(self.collection, self._sought, self._limits, progress)
        return self._latest

    @property
    def stopped(self) -> str:
        """Which limit ended the latest search, as in "timeout=3", "" where none did."""
        return "" if self._latest is None else for_python(self._latest.stopped)

    @cached_property
    def subgraphs(self) -> list[Subgraph]:
        """All subgraphs; of independent masks there may be millions."""
        return list(self)

    @cached_property
    def pairs(self) -> list[Overlap]:
        """Every pair of graphs: the edges that both have, the Jaccard index, and what chance gives at their densities."""
        from pai_cli.mining.overlap import overlaps

        return overlaps(self.collection)

    @cached_property
    def consensus(self) -> Mask:
        """The mask of the weights that at least `support` of the masks keep. Raises `UsageError` for lists of edges."""
        if not self._masks:
            raise UsageError(f"{option('graphs')}: lists of edges have no weights, of which a mask could be made")
        made = self.consensus_to_write()
        return Mask(made.masks, layouts=made.layouts, metadata=made.metadata)

    def consensus_to_write(self) -> MaskToWrite:
        """The same, made once, with what a mask file tells of how it was made."""
        from pai_cli.mining.consensus import consensus

        if self._written is None:
            self._written = consensus(self._masks, self.support, provenance(typed()))
        return self._written


@takes_numpy
def mine(
    masks: Any,
    support: str | float = SUPPORT,
    *,
    min_edges: int | None = None,
    level: str | None = None,
    graphs: bool = False,
    weights: Source = None,
    model: str | None = None,
    input_shape: Shape | None = None,
    overlap: bool = False,
    output: AnyPath | None = None,
    packed: bool = False,
    max_results: int | None = None,
    timeout: float | None = None,
    plot: AnyPath | None = None,
    force: bool = False,
    trust: bool = False,
    progress: Wanted = None,
) -> Mining:
    """What masks of one network agree on: all maximal connected subgraphs that enough of them hold in full, exactly.

    The masks are read and compared here; the search is made as the result is iterated over.

    `masks`: paths, folders, `Mask` objects or mappings of boolean arrays, one or a list. `support`: how many must
    hold a subgraph: a share as a number with a point, 0.8 (1.0 is all), or a whole number of masks, 12. `min_edges`: the
    fewest edges of a subgraph, 3 by default. `level`: "unit", the default: an edge is a kernel of which any weight is kept,
    between units that one layer writes and the next reads; "weight": an edge is a kept weight, each layer by itself.
    `graphs`: the files are lists of edges, two names a line, instead of masks. `weights`: a checkpoint of the masks' network
    (a path, an `nn.Module`, a state dict), which is then followed to find who reads whom, as `model` and with `input_shape`
    where names do not tell; otherwise order and names of the layers tell. `overlap`: the pairs alone are wanted, no search
    is made. `output`: where to write the consensus mask, `packed` as bits. `max_results`, `timeout`: stop a search after so
    many subgraphs, or seconds. `plot`: draw the Jaccard index of every pair: .svg, .png or .pdf. `force`: replace files.
    `trust`: a pickle may run the code in it. `progress`: True for a bar, or what is called with (done, total, what).

    Raises `UsageError` where an option could do nothing, `MiningError`, `MaskError`, `EdgeListError`, `TraceError`,
    `PictureError`, `OutputError`, and with `weights` what loading a network raises.
    """
    asked = dict(locals())
    shape, path, picture = shape_of(input_shape), maybe_path(output), maybe_path(plot)
    how = None if level is None else one_of("level", level, Level)
    refuse(mine, IDLE, asked)
    check_least(1, min_edges=min_edges, max_results=max_results)
    check_least(0, timeout=timeout)
    from pai_cli.display.figures.canvas import check_picture
    from pai_cli.mining.run import Limits
    from pai_cli.mining.search import Wanted as Sought
    from pai_cli.mining.support import parse_support

    needed = parse_support(str(support))
    check_picture(picture)
    given = listed(masks)
    plan = plan_mining(named(given), source_path(weights), model, path, picture, force=force)
    with shown_by(progress, "reading") as reading:
        read: list[Stored] = []
        if graphs:
            collection = _of_graphs(given, plan, reading)
        else:
            followed = _Followed(weights, model, shape, trust)
            collection, read = _of_masks(given, how or Level.UNIT, followed, plan, reading)
    sought = Sought(needed.among(len(collection.names)), MIN_EDGES if min_edges is None else min_edges)
    mined = Mining(collection, read, sought, Limits(max_results, timeout), overlap=overlap)
    mined._progress = progress
    _draw(mined, picture, force=force)
    _write_consensus(mined, path, packed=packed, force=force)
    if path is not None and weights is not None:
        tell_on_no_path(mined.consensus.stored, open_source(weights, trust=trust), model, shape)
    return mined


def _of_graphs(given: list[Any], plan: FilePlan, progress: Progress) -> Collection:
    from pai_cli.files.paths import graph_paths
    from pai_cli.mining.opening import graph_collection

    if len(named(given)) < len(given):
        raise UsageError(f"{option('graphs')}: reads files of edges, and a mask was given; leave one out")
    files = graph_paths(given, sys.stdin or io.StringIO())
    read_masks(plan, files)
    return graph_collection(files, note, progress)


def _of_masks(
    given: list[Any], level: Level, followed: _Followed, plan: FilePlan, progress: Progress
) -> tuple[Collection, list[Stored]]:
    """The graphs, and the masks they are of."""
    from pai_cli.mining.opening import NetworkSource, mask_collection, open_masks

    found = opened(given, followed.weights, one=False, trust=followed.trust)
    read_masks(plan, [one for one in found if isinstance(one, Path)])
    masks = open_masks(found, note, trust=followed.trust)
    source = NetworkSource(open_weights(followed.weights, trust=followed.trust), followed.model, followed.shape)
    return mask_collection(masks, level, source, note, progress), masks


def _draw(mined: Mining, picture: Path | None, *, force: bool) -> None:
    if picture is None:
        return
    from pai_cli.display.figures.overlap import plot_overlap
    from pai_cli.display.mining import verdict

    plot_overlap(mined.pairs, mined.names, verdict(mined.pairs, mined.collection), picture, force=force)


def _write_consensus(mined: Mining, path: Path | None, *, packed: bool, force: bool) -> None:
    """Write the mask of what enough masks keep, where that is asked for, and say how much it is."""
    if path is None:
        return
    from pai_cli.files.masks import write_mask

    write_mask(path, mined.consensus_to_write(), packed=packed, force=force)
    mask = mined.consensus
    note(
        f"wrote {path}: the {mask.kept:,} of {mask.total:,} weights that {mined.support} of {len(mined.names)} masks keep, "
        f"density {mask.density:.6g}"
    )
    if mask.collapsed:
        warn(f"layer collapse: {', '.join(mask.collapsed)} kept no weight; lower {option('support')}")
