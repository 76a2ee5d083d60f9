"""Which candidates are taken: whole masks, or the layers of masks.

Hoang, Kundu, Liu, Wang, "Don't just prune by magnitude! Your mask topology is a secret weapon", NeurIPS 2023 (PAGS).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pai_cli.errors import ScoreError
from pai_cli.models.copies import one_torch_thread
from pai_cli.pruning.base import Masks
from pai_cli.pruning.layers import select_layers
from pai_cli.pruning.request import quota_of
from pai_cli.pruning.run import score_arrays
from pai_cli.pruning.select import ScoreArrays, keep_largest
from pai_cli.pruning.ties import Tie, Ties
from pai_cli.ranking.expression import score_of
from pai_cli.sampling.candidates import Candidate
from pai_cli.sampling.measuring import LayerCache, measure, measures_of, remember
from pai_cli.sampling.state import LayerMeasures, SearchState
from pai_cli.spectral.catalogue import RANKED

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.models.network import Network
    from pai_cli.sampling.request import SearchRequest
    from pai_cli.spectral.table import LayerTable

LAYER_MEASURES = ("dr_imdb", "l2")


def take_mask(state: SearchState, candidate: Candidate, masks: Masks, by: str = "l2") -> SearchState:
    """The state after a candidate whose mask is taken when its network's value of `by` is better than any before."""
    larger = score_of(by, RANKED).larger_is_better
    if state.best is not None and not _beats(candidate.measures[by], state.best_measures[by], larger=larger):
        return state
    return replace(
        state,
        best=candidate.number,
        best_measures=candidate.measures,
        best_rounds=candidate.rounds,
        best_ties=candidate.ties,
        masks=masks,
    )


@dataclass
class LayerSelection:
    """Takes layers into a composite, which has the right count after each candidate.

    `cache`: layers measured so far. `unpruned`: the method's scores before anything is pruned, once they were needed.
    """

    network: Network
    request: SearchRequest
    dataset: Dataset | None
    cache: LayerCache
    unpruned: ScoreArrays | None = None

    def take(self, state: SearchState, candidate: Candidate, masks: Masks) -> tuple[SearchState, int]:
        """The state after a candidate, and how many of its layers were taken.

        A layer is taken when `is_better` than the composite's. When any was, the composite is brought to the exact count
        and measured again, and it is the best when its network l2 is larger than any before.
        """
        better = {
            name for name, layer in _measures_of(candidate.layers).items() if is_better(layer, state.layers.get(name))
        }
        if not better:
            return state, 0
        remember(self.cache, masks, candidate.layers)
        found = {name: (candidate.ties if name in better else state.ties).get(name) for name in masks}
        ties = {name: tie for name, tie in found.items() if tie is not None}
        taken = {name: masks[name] if name in better else state.composite[name] for name in masks}
        composite = self.exact(taken, ties)
        report = measure(self.network, composite, self.cache, self.request.convention)
        after = replace(
            state,
            composite=composite,
            layers=_measures_of(report.layers),
            sources={**state.sources, **dict.fromkeys(sorted(better), candidate.number)},
            ties=ties,
        )
        measures = measures_of(report)
        if state.best is None:
            after = replace(after, best_rounds=candidate.rounds)
        elif _value(measures["l2"]) <= _value(state.best_measures["l2"]):
            return after, len(better)
        best = replace(
            after,
            best=candidate.number,
            best_measures=measures,
            masks=composite,
            best_sources=after.sources,
            best_ties=ties,
        )
        return best, len(better)

    def exact(self, composite: Masks, ties: dict[str, Tie] | None = None) -> Masks:
        """A composite with as many weights as the density asks for.

        Too many: those of the smallest scores go. Too few: those of the largest scores come, of the scores the method
        gives before anything is pruned, with candidate 0's seed and samples. Where each layer has its own count, every
        composite has it. What ties this settles is added to `ties`.
        """
        prune = self.request.prune
        counts = quota_of(prune, self.network, select_layers(self.network.layers, prune.ignore)).steps(1)[-1]
        if prune.pattern is not None or not isinstance(counts, int):
            return composite  # each layer of each candidate has its own count exactly
        settled = Ties(prune.ties, prune.seed, {} if ties is None else ties)
        kept = sum(int(np.count_nonzero(mask)) for mask in composite.values())
        if kept > counts:
            return keep_largest(self._scores_within(composite), counts, composite, settled)
        if kept < counts:
            pruned = {name: ~mask for name, mask in composite.items()}
            added = keep_largest(self._unpruned(), counts - kept, pruned, settled)
            return {name: mask | added[name] for name, mask in composite.items()}
        return composite

    def _scores_within(self, composite: Masks) -> ScoreArrays:
        """What the kept weights score: of a method in rounds, in one round more; of another, what they always do."""
        method, rounds = self.request.prune.method, self.request.prune.rounds
        if method.iterative and (rounds or method.rounds) != 1:
            with suppress(ScoreError):  # of a composite without a path from input to output, say
                return self._scores(composite)
        return self._unpruned()

    def _unpruned(self) -> ScoreArrays:
        if self.unpruned is None:
            self.unpruned = self._scores(None)
        return self.unpruned

    def _scores(self, masks: Masks | None) -> ScoreArrays:
        with one_torch_thread():
            return score_arrays(self.network, self.request.prune, masks, self.dataset)


def is_better(new: LayerMeasures, old: LayerMeasures | None) -> bool:
    """Whether dr_imdb and l2 of a layer are both at least the old ones and one is larger; any layer is better than none.

    A missing one is less than any number, and two missing ones are equal.
    """
    if old is None:
        return True
    pairs = [(_value(new[name]), _value(old[name])) for name in LAYER_MEASURES]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _measures_of(layers: LayerTable) -> dict[str, LayerMeasures]:
    """Each layer's, by its name."""
    columns = [layers.measures[name].lists[0] for name in LAYER_MEASURES]
    rows = (dict(zip(LAYER_MEASURES, row, strict=True)) for row in zip(*columns, strict=True))
    return dict(zip(layers.names, rows, strict=True))


def _beats(new: float | None, old: float | None, *, larger: bool) -> bool:
    if new is None or old is None:
        return old is None and new is not None
    return new > old if larger else new < old


def _value(measure: float | None) -> float:
    """A missing measure is less than any number."""
    return float("-inf") if measure is None else measure
