"""What each layer keeps of a checkpoint larger than memory: the counts and ties of `pruning.run.prune`, found in passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from pai_cli.compute.threads import mapped
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.models.loading import names_to_check
from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Method
from pai_cli.pruning.counts import PatternQuota, Quota
from pai_cli.pruning.layers import select_layers
from pai_cli.pruning.request import PruneRequest, quota_of
from pai_cli.pruning.run import PruneSummary
from pai_cli.pruning.streaming.keys import Keys
from pai_cli.pruning.streaming.reading import AHEAD, OpenFiles, Part, Piece, check_dtypes, pieces_of, read_all
from pai_cli.pruning.streaming.scores import Draws, Magnitudes, PieceScores
from pai_cli.pruning.streaming.search import Draft, Drafts, LayerCut, Search, Tally, drafted, without_search
from pai_cli.pruning.ties import LayerTies, Ties, noteworthy

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network, PrunableLayer


LARGE = 2**28
"""Weights from which on a checkpoint is pruned piece by piece.

Loaded, so many take 1 GiB in float32 and while they are read a second one; random scores, which are float64, and their
selection make that about 5 GiB. Below, a run takes little time and memory either way, and the network at hand tells more:
whether a path of kept weights leads from its input to its output.
"""


def in_pieces(source: Checkpoint, method: Method, model: str | None) -> bool:
    """Whether to prune the checkpoint without loading it: a method that scores in pieces, a large checkpoint in
    safetensors, and a network that names and shapes tell (code that makes a network makes all of it).
    """
    if method.in_pieces is None or not source.in_spans:
        return False
    if model is not None and (":" in model or model == "hf"):
        return False
    return sum(prod(shape) for shape in source.shapes.values()) >= LARGE


Searches = Mapping[str, Search]
"""By layer; layers that are chosen from together share one. Those that keep all or nothing have none."""


@dataclass
class Meter:
    """Bytes done, of those that all passes known so far go through."""

    progress: Progress
    total: int
    done: int = 0

    def step(self, size: int, what: str) -> None:
        """So many bytes more."""
        self.done += size
        self.progress(min(self.done, self.total - 1), self.total, what)

    def end(self) -> None:
        """All is done."""
        self.progress(self.total, self.total)


@dataclass(frozen=True)
class PieceTally:
    """What a pass finds in a piece; `draft` where there is room for one."""

    piece: Piece
    tally: Tally
    draft: Draft | None


@dataclass(frozen=True)
class Chosen:
    """What is kept, yet to be written: the cut of each layer, by name; a layer that a pattern decides has none. `ties`:
    which of the weights at a cut are kept; a copy is asked from the first piece to the last.

    `sha256`: of the checkpoint, as `Checkpoint.sha256` gives it. `story`: what the mask file tells of its network.
    """

    source: Checkpoint
    request: PruneRequest
    summary: PruneSummary
    cuts: Mapping[str, LayerCut]
    ties: Mapping[str, LayerTies]
    drafts: Drafts
    sha256: str
    story: Mapping[str, str]


def choose(source: Checkpoint, network: Network, request: PruneRequest, progress: Progress = silent) -> Chosen:
    """Read the checkpoint, and more of it as often as needed, until it is known what each layer keeps.

    `network`: its layers; no value of it is used. `request`: one that `check_request` lets through, of a method that
    scores in pieces. Raises `NotFiniteError` and `CheckpointError` for weights that cannot be, as loading them would.
    """
    layers = select_layers(network.layers, request.ignore)
    quota = quota_of(request, network, layers)
    names = names_to_check(source, network.model)
    check_dtypes(source, names)
    meter = Meter(progress, sum(path.stat().st_size for path in source.files))
    with OpenFiles() as files:
        scores = scores_of(source, request, layers, files)
        cuts, searches = _begin(quota, layers, scores)
        chooser = _Chooser(scores, layers, searches, Drafts(max(source.span(layer.name).size for layer in layers)))
        sha256 = chooser.read(source, names, files, meter)
        chooser.finish(meter)
    ties, chosen_ties = Ties(request.ties, request.seed), dict[str, LayerTies]()
    for search in dict.fromkeys(searches.values()):
        cuts |= _settled(search, ties, chosen_ties)
    meter.end()
    summary = _summary(quota, layers, cuts)
    tied = {layer.name: ties.found[layer.name] for layer in layers if layer.name in ties.found}
    summary = replace(summary, ties=noteworthy(tied, summary.kept))
    return Chosen(source, request, summary, cuts, chosen_ties, chooser.drafts, sha256, network.story)


def _settled(search: Search, ties: Ties, chosen: dict[str, LayerTies]) -> dict[str, LayerCut]:
    """The cuts that a search found, its ties shared out over the layers; `chosen` takes in which of a layer's are kept."""
    found = search.cuts or {}
    cut = ties.cut(sum(one.equal for one in found.values()), sum(one.ties for one in found.values()))
    settled = {}
    for name, one in found.items():
        chosen[name] = of_layer = cut.of_layer(name, one.equal)
        settled[name] = replace(one, kept=one.kept - one.ties + of_layer.keep, ties=of_layer.keep)
    return settled


def scores_of(
    source: Checkpoint, request: PruneRequest, layers: tuple[PrunableLayer, ...], files: OpenFiles
) -> PieceScores:
    """The scores that the request's method gives in pieces."""
    if request.method.in_pieces == "draw":
        return Draws(request.seed, invert=request.invert)
    return Magnitudes(source, layers, files, invert=request.invert)


def _begin(
    quota: Quota, layers: tuple[PrunableLayer, ...], scores: PieceScores
) -> tuple[dict[str, LayerCut], dict[str, Search]]:
    """The cuts of layers that keep all or nothing, and a search for each set of others that shares a count."""
    counts = quota.steps(1)[-1]
    if isinstance(quota, PatternQuota):
        return {}, {}
    alone = [((layer,), counts[layer.name]) for layer in layers] if isinstance(counts, dict) else []
    together = [(layers, counts)] if isinstance(counts, int) else alone
    cuts: dict[str, LayerCut] = {}
    searches: dict[str, Search] = {}
    for some, count in together:
        sizes = {layer.name: prod(layer.shape) for layer in some}
        if 0 < count < sum(sizes.values()):
            search = Search(sizes, count, scores.most, scores.guess(some, count))
            searches |= dict.fromkeys(sizes, search)
        else:
            cuts |= {name: without_search(size, min(count, size), scores.most) for name, size in sizes.items()}
    return cuts, searches


class _Chooser:
    """Ends the searches in passes over the layers, and keeps the drafts of the last of each."""

    def __init__(
        self, scores: PieceScores, layers: tuple[PrunableLayer, ...], searches: Searches, drafts: Drafts
    ) -> None:
        self.drafts = drafts
        self._scores = scores
        self._layers = {layer.name: layer for layer in layers if layer.name in searches}
        self._searches = searches

    def read(self, source: Checkpoint, names: tuple[str, ...], files: OpenFiles, meter: Meter) -> str:
        """The pass over all bytes, which gives their digest, and the first over the layers."""

        def look(name: str, start: int, magnitude: Keys) -> PieceTally | None:
            if name not in self._layers:
                return None
            piece = Piece(self._layers[name], start, start + magnitude.size)
            return self._look(piece, self._scores.blocks(piece, magnitude))

        def take(part: Part, found: PieceTally | None) -> None:
            self._take(found)
            meter.step(part.size, "reading")

        sha256 = read_all(source, names, look, take, files)
        self._forget()
        return sha256

    def finish(self, meter: Meter) -> None:
        """As many more passes as it takes, over the layers whose cuts are not known."""
        size = self._scores.item_size
        while unknown := [layer for name, layer in self._layers.items() if self._searches[name].cuts is None]:
            meter.total += size * sum(prod(layer.shape) for layer in unknown)
            pieces = (piece for layer in unknown for piece in pieces_of(layer))
            with closing(
                mapped(lambda piece: self._look(piece, self._scores.blocks(piece)), pieces, ahead=AHEAD)
            ) as several:
                for found in several:
                    self._take(found)
                    meter.step(found.tally.size * size, "choosing")
            self._forget()

    def _look(self, piece: Piece, blocks: Iterable[Keys]) -> PieceTally:
        """What several threads do at a time."""
        return PieceTally(piece, *drafted(blocks, self._searches[piece.layer.name].window))

    def _take(self, found: PieceTally | None) -> None:
        if found is None:
            return
        search = self._searches[found.piece.layer.name]
        search.add(found.piece.layer.name, found.tally)
        if found.draft is not None:
            self.drafts.add(found.piece, found.draft)
        if search.seen_all:
            search.finish()

    def _forget(self) -> None:
        """The drafts of a pass that found no cut: the next has another window."""
        self.drafts.drop(name for name, search in self._searches.items() if search.cuts is None)


def _summary(quota: Quota, layers: tuple[PrunableLayer, ...], cuts: Mapping[str, LayerCut]) -> PruneSummary:
    whole: tuple[str, ...] = ()
    if isinstance(quota, PatternQuota):
        whole = quota.whole
        kept = {layer.name: prod(layer.shape) for layer in layers}
        kept |= {
            name: size * quota.pattern.keep // quota.pattern.of for name, size in kept.items() if name not in whole
        }
    else:
        kept = {layer.name: cuts[layer.name].kept for layer in layers}
    return PruneSummary(
        layers=layers,
        kept_by_layer=kept,
        connected=None,
        rounds=1,
        scope=quota.scope,
        whole=whole,
    )
