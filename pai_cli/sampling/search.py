"""The best mask of many: candidates of one method at one density, the best connected taken.

Hoang, Kundu, Liu, Wang, "Don't just prune by magnitude! Your mask topology is a secret weapon", NeurIPS 2023 (PAGS).
Candidate 0 is the method's own mask; a later one comes from a fresh seed where the method draws at random or scores with
samples, which are then others, else from weights with Gaussian noise, its standard deviation relative to the layer's own,
or as it stands.
What is taken of a candidate is said in `selection`; the density stays exact.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pai_cli.analysis.masks import unanswered_told
from pai_cli.errors import ResumeError, ScoreError
from pai_cli.files.journal import Journal
from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Masks
from pai_cli.pruning.layers import select_layers
from pai_cli.pruning.run import PruneRequest, PruneResult, result_of
from pai_cli.pruning.ties import noteworthy
from pai_cli.sampling.candidates import Candidate, Failure, Workshop
from pai_cli.sampling.measuring import LayerCache
from pai_cli.sampling.request import SHOWN, USUAL_BY, NoiseUnit, SearchRequest, Select
from pai_cli.sampling.selection import LayerSelection, take_mask
from pai_cli.sampling.state import Measures, SearchState, keep_search
from pai_cli.sampling.workers import Workers, made
from pai_cli.spectral.conventions import Convention
from pai_cli.spelling import for_shell, option
from pai_cli.telling import warn

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.tables import Record
    from pai_cli.models.network import Network

__all__ = ["SHOWN", "SearchRequest", "SearchResult", "Workers", "search"]

SECONDS_BETWEEN_SAVES = 2.0
HERE = Workers(jobs=1)


@dataclass(frozen=True)
class SearchResult:
    """The best candidate's number, its masks and measures (l2, dr_imdb, lambda_imsg), out of how many candidates.

    `explored`: share of the weights that some candidate kept, 0 to 1. `request`: what the best was asked for, its own
    seed among it; of layers taken from several, what candidate 0 was. `by`: what it is the best of. `sources`: the candidate
    that each layer is of, when layers were taken. `convention`: what the measures are by. `noise`, in `noise_unit`: that of
    the weights, 0 for a method that draws.
    """

    best: int
    pruned: PruneResult
    measures: Measures
    candidates: int
    explored: float
    request: PruneRequest
    select: Select
    sources: dict[str, int]
    convention: Convention
    by: str = USUAL_BY
    noise: float = 0.0
    noise_unit: NoiseUnit = "layer"

    @property
    def story(self) -> dict[str, str]:
        """What a mask file should tell of the search besides the method; see `request` for the best one's samples."""
        metadata = {"candidate": str(self.best), "population": str(self.candidates), "select": self.select}
        metadata["convention"] = self.convention.value
        if not self.request.method.draws:
            metadata |= {"noise": repr(self.noise), "noise_unit": self.noise_unit}
        if self.by != USUAL_BY:
            metadata["by"] = self.by
        if self.sources:
            metadata["layer_candidates"] = json.dumps(self.sources, separators=(",", ":"))
        return metadata


def search(
    network: Network,
    request: SearchRequest,
    journal: Journal,
    state: SearchState,
    progress: Progress = silent,
    *,
    dataset: Dataset | None = None,
    workers: Workers = HERE,
) -> SearchResult:
    """Go on from `state` until `request.population` candidates are measured; `journal` has a row of each as it goes.

    What is finished survives an interruption: `open_search` gives the state to go on from. `dataset`: where a
    method with data takes its samples from. The result is the same whatever `workers` make the candidates. A candidate
    that the method cannot score is a line with the reason; when it is the first, that is raised. Raises what `prune`
    raises, `OutputError`, what the pool raises, and `ResumeError` when more candidates than that are done already.
    """
    if state.done > request.population:
        raise ResumeError(
            f"{journal.path}: {state.done} candidates are done already; give {option('population', state.done)} or more"
        )
    workshop = Workshop(network, request, dataset, workers.factory)
    if request.of_whole:
        workshop.check_whole()
    layers = select_layers(network.layers, request.prune.ignore)
    if state.done and {name: mask.shape for name, mask in state.masks.items()} != {
        one.name: one.shape for one in layers
    }:
        raise ResumeError(
            f"{journal.state_path}: is of other layers than this network's; {option('force')} starts the search again"
        )
    taker = _Taker(LayerSelection(network, request, dataset, LayerCache()), journal)
    if state.done < request.population:
        with _saved_at_the_end(journal, state):
            _go_on(workshop, taker, state, workers, progress)
    assert state.best is not None
    pruned = result_of(network, request.prune, state.masks, state.best_rounds)
    return SearchResult(
        best=state.best,
        pruned=replace(pruned, ties=noteworthy(state.best_ties, pruned.kept)),
        measures=state.best_measures,
        candidates=state.done,
        explored=_share(state.explored),
        request=request.prune if request.select == "layer" else request.of_candidate(state.best),
        select=request.select,
        by=request.by,
        sources={name: state.best_sources[name] for name in state.masks if name in state.best_sources},
        convention=request.convention,
        noise=request.noise,
        noise_unit=request.noise_unit,
    )


def _go_on(workshop: Workshop, taker: _Taker, state: SearchState, workers: Workers, progress: Progress) -> None:
    """Take every candidate that is not done, in order."""
    population, saved = workshop.request.population, time.monotonic()
    progress(state.done, population, "sampling")
    with closing(made(workshop, state.done, workers)) as candidates:
        for one in candidates:
            taker.take(one, state)
            best = state.best_measures[workshop.request.by]
            progress(state.done, population, f"best {workshop.request.by} {'-' if best is None else f'{best:.4g}'}")
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                keep_search(taker.journal, state)
                saved = time.monotonic()


@contextmanager
def _saved_at_the_end(journal: Journal, state: SearchState) -> Iterator[None]:
    """Save the state however the block ends, Ctrl-C among the ways."""
    try:
        yield
    finally:
        if state.done:
            keep_search(journal, state)


@dataclass
class _Taker:
    """Takes candidates one after the other, and writes a line for each. `warned`: of layers without singular values."""

    selection: LayerSelection
    journal: Journal
    warned: bool = False

    def take(self, made: Candidate | Failure, state: SearchState) -> None:
        """Take what is better of a candidate; the state changes in one step, after the line is written.

        Raises `ScoreError` when the first candidate failed.
        """
        if isinstance(made, Failure):
            if made.number == 0:
                raise ScoreError(made.reason)
            after, layers = state, 0
        else:
            self._warn_of(made)
            masks = made.masks
            after, layers = self._taken(made, masks, state)
            after = replace(after, explored=_union(state.explored, masks))
        after = replace(after, done=made.number + 1)
        self.journal.append(_line(made, after, layers, self.selection.request.shown))
        state.become(after)

    def _warn_of(self, made: Candidate) -> None:
        """Say it of the first candidate with a layer that has no singular values; lines tell of all."""
        unanswered = made.layers.unanswered
        if unanswered and not self.warned:
            warn(
                f"candidate {made.number}: {unanswered_told(unanswered)}; its means are without them, and the reasons in "
                f"{self.journal.path} tell of other candidates"
            )
            self.warned = True

    def _taken(self, made: Candidate, masks: Masks, state: SearchState) -> tuple[SearchState, int]:
        """The state with what is taken of a candidate, and how many layers that is."""
        if self.selection.request.select == "layer":
            return self.selection.take(state, made, masks)
        after = take_mask(state, made, masks, self.selection.request.by)
        return after, 0 if after is state else len(masks)


def _line(made: Candidate | Failure, after: SearchState, layers: int, shown: tuple[str, ...]) -> Record:
    """A candidate's own measures, what was taken of it, and what is best now."""
    if isinstance(made, Failure):
        own: Record = {**dict.fromkeys(shown), "reason": for_shell(made.reason), "l2_error": None, "kept": None}
    else:
        own = {**made.measures, "l2_error": made.l2_error, "kept": made.kept}
    return {
        "candidate": made.number,
        **own,
        "taken": layers > 0,
        "layers_taken": layers,
        "best": after.best,
        **{f"best_{name}": value for name, value in after.best_measures.items()},
        "explored": _share(after.explored),
    }


def _union(explored: Masks, masks: Masks) -> Masks:
    return {name: mask | explored[name] if name in explored else mask.copy() for name, mask in masks.items()}


def _share(explored: Masks) -> float:
    kept = sum(int(np.count_nonzero(mask)) for mask in explored.values())
    return kept / sum(mask.size for mask in explored.values())
