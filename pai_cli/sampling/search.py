"""The best mask of many: candidates of one method at one density, the one with the largest full-spectrum norm taken.

Hoang, Kundu, Liu, Wang, "Don't just prune by magnitude! Your mask topology is a secret weapon", NeurIPS 2023 (PAGS),
taking whole masks: the density stays exact. Candidate 0 is the method's own mask; a later one comes from a fresh seed
where the method draws at random or scores with samples, which are then others, else from weights with Gaussian noise, its
standard deviation relative to the layer's own.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pai_cli.analysis.layers import Measuring, measure_everywhere
from pai_cli.errors import MethodOptionError, ResumeError
from pai_cli.models.network import Network
from pai_cli.progress import Progress, silent
from pai_cli.pruning import registry
from pai_cli.pruning.base import Masks
from pai_cli.pruning.run import PruneRequest, PruneResult, choose_masks, result_of
from pai_cli.sampling.trajectory import Measures, SearchState, Trajectory
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, NetworkReport, summarise

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset

SHOWN = ("l2", "dr_imdb", "lambda_imsg")
SECONDS_BETWEEN_SAVES = 2.0
USUAL_NOISE = 0.1


@dataclass(frozen=True)
class SearchRequest:
    """What to search for.

    `prune`: the method, density and seed of candidate 0. `population`: how many candidates. `noise`: standard deviation of
    what is added to the weights of a method that draws neither numbers nor samples, relative to each layer's own.
    """

    prune: PruneRequest
    population: int
    noise: float

    @staticmethod
    def of(request: PruneRequest, population: int, noise: float | None) -> SearchRequest:
        """The request with the noise asked for, or the usual 0.1; none for a method that draws, numbers or samples.

        Raises `MethodOptionError` when noise is asked for that would do nothing.
        """
        method = registry.get(request.method)
        if method.trains:
            raise MethodOptionError(
                f"--method {method.name}: trains, and would for every candidate; take its one mask from pai prune"
            )
        if not method.draws:
            return SearchRequest(request, population, USUAL_NOISE if noise is None else noise)
        if noise is not None:
            does, by = ("scores with samples", "samples") if method.data else ("draws at random", "seeds")
            raise MethodOptionError(
                f"--noise {noise:g}: {request.method} {does}, so its candidates differ by their {by}; leave --noise out"
            )
        return SearchRequest(request, population, 0.0)

    def settings(self, source_sha256: str) -> dict[str, Any]:
        """What must be the same for a search to be continued: everything but how many candidates, and the device."""
        facts = {key: value for key, value in asdict(self.prune).items() if key != "device"}
        settings = {**facts, "noise": self.noise, "source_sha256": source_sha256}
        # As they come back from a file, tuples as lists.
        as_stored: dict[str, Any] = json.loads(json.dumps(settings))
        return as_stored

    def of_candidate(self, number: int) -> PruneRequest:
        """What is asked of candidate `number`: of one that draws, with a seed of its own."""
        if number == 0 or not registry.get(self.prune.method).draws:
            return self.prune
        seed = int(self._source(number).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return replace(self.prune, seed=seed)

    def noise_of(self, number: int) -> np.random.Generator | None:
        """What draws the noise on the weights of candidate `number`; None where it has none."""
        if number == 0 or registry.get(self.prune.method).draws:
            return None
        return np.random.default_rng(self._source(number))

    def _source(self, number: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.prune.seed, spawn_key=(number,))


@dataclass(frozen=True)
class SearchResult:
    """The best candidate's number, its masks and measures (l2, dr_imdb, lambda_imsg), out of how many candidates.

    `explored`: share of the weights that some candidate kept, 0 to 1. `request`: what the best was asked for, its own
    seed among it.
    """

    best: int
    pruned: PruneResult
    measures: Measures
    candidates: int
    explored: float
    request: PruneRequest

    @property
    def story(self) -> dict[str, str]:
        """What a mask file should tell of the search besides the method; see `request` for the best one's samples."""
        return {"candidate": str(self.best), "population": str(self.candidates)}


def search(
    network: Network,
    request: SearchRequest,
    trajectory: Trajectory,
    state: SearchState,
    progress: Progress = silent,
    *,
    dataset: Dataset | None = None,
) -> SearchResult:
    """Go on from `state` until `request.population` candidates are measured; the trajectory is written as it goes.

    What is finished survives an interruption: `trajectory.resume` gives the state to go on from. `dataset`: where a
    method with data takes its samples from. Raises what `prune` raises, `OutputError`, and `ResumeError` when more
    candidates than that are done already.
    """
    if state.done > request.population:
        raise ResumeError(
            f"{trajectory.path}: {state.done} candidates are done already; give --population {state.done} or more"
        )
    saved = time.monotonic()
    with _saved_at_the_end(trajectory, state):
        for number in range(state.done, request.population):
            progress(number, request.population, f"best l2 {state.best_measures.get('l2') or 0.0:.4g}")
            _take(_candidate(network, request, number, dataset), number, network, trajectory, state)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                trajectory.save(state)
                saved = time.monotonic()
    assert state.best is not None
    return SearchResult(
        best=state.best,
        pruned=result_of(network, request.prune, state.masks, state.best_rounds),
        measures=state.best_measures,
        candidates=state.done,
        explored=_share(state.explored),
        request=request.of_candidate(state.best),
    )


@contextmanager
def _saved_at_the_end(trajectory: Trajectory, state: SearchState) -> Iterator[None]:
    """Save the state however the block ends, Ctrl-C among the ways."""
    try:
        yield
    finally:
        if state.done:
            trajectory.save(state)


@dataclass(frozen=True)
class Candidate:
    """One candidate's masks, and how many rounds made them."""

    masks: Masks
    rounds: int


def _candidate(network: Network, request: SearchRequest, number: int, dataset: Dataset | None = None) -> Candidate:
    """Candidate `number`, a function of the request and the number only, so that a search may stop and go on anywhere."""
    noise = request.noise_of(number)
    if noise is not None:
        network = _noisy(network, request.noise, noise)
    return Candidate(*choose_masks(network, request.of_candidate(number), dataset=dataset))


def _noisy(network: Network, noise: float, generator: np.random.Generator) -> Network:
    """A copy whose prunable weights have Gaussian noise added."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for layer in changed.layers:
            weight = changed.parameter(layer.name)
            spread = float(weight.double().std(correction=0))
            draw = torch.from_numpy(generator.standard_normal(layer.shape)).to(weight.dtype)
            weight.add_(draw, alpha=noise * spread)
    return changed


def _take(candidate: Candidate, number: int, network: Network, trajectory: Trajectory, state: SearchState) -> None:
    """Measure a candidate, keep it when it is the best so far, and write its line."""
    report = _measured(network, candidate.masks)
    measures: Measures = {name: report.measures[name].value for name in SHOWN}
    measures["reason"] = "; ".join(
        f"{name}: {report.measures[name].reason}" for name in SHOWN if measures[name] is None
    )
    taken = state.best is None or (measures["l2"] or 0.0) > (state.best_measures["l2"] or 0.0)
    after = SearchState(
        done=number + 1,
        best=number if taken else state.best,
        best_measures=measures if taken else state.best_measures,
        best_rounds=candidate.rounds if taken else state.best_rounds,
        masks=candidate.masks if taken else state.masks,
        explored={
            name: mask | state.explored[name] if name in state.explored else mask.copy()
            for name, mask in candidate.masks.items()
        },
    )
    trajectory.append(
        {
            "candidate": number,
            **measures,
            "l2_error": report.measures["l2"].error,
            "kept": report.kept,
            "taken": taken,
            "best": after.best,
            **{f"best_{name}": value for name, value in after.best_measures.items()},
            "explored": _share(after.explored),
        }
    )
    state.become(after)


def _measured(network: Network, masks: Masks) -> NetworkReport:
    """The candidate's measures, always against the checkpoint's own weights."""
    kept = [layer for layer in network.layers if layer.name in masks]  # the others are left whole by --ignore
    layers = (
        LayerInput(one.name, masks[one.name], network.parameter(one.name).detach().cpu().numpy(), one.layout)
        for one in kept
    )
    total = sum(masks[one.name].size for one in kept)
    return summarise(
        measure_everywhere(layers, total, Measuring(MetricOptions(dense=False), DenseCache(), "a candidate"))
    )


def _share(explored: dict[str, np.ndarray]) -> float:
    kept = sum(int(np.count_nonzero(mask)) for mask in explored.values())
    return kept / sum(mask.size for mask in explored.values())
