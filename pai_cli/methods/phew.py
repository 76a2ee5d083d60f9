"""PHEW: weights that random walks between input and output come upon, heavier ones more likely."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.errors import ScoreError
from pai_cli.methods.walks import Indices, Reals, Steps, Walker
from pai_cli.models.trace import trace
from pai_cli.pruning.base import ScoreContext, Scorer, fixed
from pai_cli.spelling import option

LARGEST_BATCH = 16_384
"""How many walks are taken together at the most."""

POOREST = 1 / 8
"""New weights a walk below which walks are led through weights that none has come upon."""


def make_scorer(context: ScoreContext) -> Scorer:
    """How early walks came upon each weight: n for the first, less for later ones, 0 for never; shaped as the weight.

    Walks forwards and backwards alternate; each begins at the next unit of the input or output in turn. At a unit the
    next weight is drawn with probability proportional to its |w| among all that leave the unit, through shortcuts as
    well: so the next unit with probability proportional to the L1 norm of its kernel, and the kernel's element
    proportional to |w|. They go on until as many weights have been come upon as the run keeps; so all that is kept
    lies on kept paths from input to output, except for the last walk, which the count may cut short. Patil and
    Dovrolis 2021, https://arxiv.org/abs/2010.11354

    At large densities walks find almost nothing new. Then each is led through a weight that none has come upon, drawn
    with probability proportional to |w|, and from there walks to both sides as before. With scope "layer" walks go on
    until every layer has its count, and what they find in a full layer is not kept.

    Raises `TraceError` (the network's wiring cannot be followed), `MethodOptionError` (input shape missing or wrong),
    `ScoreError` (no path from input to output).
    """
    graph = trace(context.network.model, context.input_shape)
    sizes = {layer.name: prod(layer.shape) for layer in context.layers}
    starts = np.cumsum([0, *sizes.values()])
    firsts = dict(zip(sizes, starts[:-1].tolist(), strict=True))
    magnitudes = {name: _weights(context, name) for name in graph.order}
    walker = Walker(graph, magnitudes, firsts)
    if not len(walker.starts) or not walker.goals:
        raise ScoreError(f"phew: no path leads from the network's input to its output; give another {option('method')}")
    found = _Found(starts, _wanted(context, sizes))
    _walk(walker, found, context.generator("phew: walks"))
    if not found.done:
        _walk_through_the_rest(walker, found, firsts, magnitudes, context.generator("phew: the rest"))
    return fixed(
        {
            name: torch.from_numpy(found.scores[first : first + sizes[name]].reshape(layer.shape))
            for (name, first), layer in zip(firsts.items(), context.layers, strict=True)
        }
    )


def _weights(context: ScoreContext, name: str) -> NDArray[np.floating]:
    tensor = context.network.parameter(name).detach().cpu()
    array: NDArray[np.floating] = (tensor.float() if tensor.element_size() < 4 else tensor).numpy()
    return array


def _wanted(context: ScoreContext, sizes: dict[str, int]) -> list[tuple[int, int, int]]:
    """Counts to be reached, each as (first layer, end of layers, count)."""
    if isinstance(context.counts, int):
        return [(0, len(sizes), context.counts)]
    counts = sizes if context.counts is None else context.counts
    return [(i, i + 1, counts[name]) for i, name in enumerate(sizes)]


class _Found:
    """The weights come upon so far. `starts`: the number of each layer's first weight, and the total."""

    def __init__(self, starts: Indices, wanted: list[tuple[int, int, int]]) -> None:
        self.scores: Reals = np.zeros(int(starts[-1]))
        self._starts = starts
        self._count = 0
        self._group = np.repeat(np.arange(len(wanted)), [end - begin for begin, end, _ in wanted])
        self._missing = np.array([count for *_, count in wanted])

    @property
    def done(self) -> bool:
        """Whether every count is reached."""
        return bool((self._missing <= 0).all())

    @property
    def missing(self) -> int:
        """How many weights are still to be come upon."""
        return int(self._missing.clip(0).sum())

    def useful(self, weights: Indices) -> Indices:
        """Those of the weights that are new and whose count is not reached yet."""
        new: Indices = weights[self.scores[weights] == 0]
        useful: Indices = new[self._missing[self._groups(new)] > 0]
        return useful

    def _groups(self, weights: Indices) -> Indices:
        group: Indices = self._group[np.searchsorted(self._starts, weights, side="right") - 1]
        return group

    def add(self, steps: list[Steps]) -> int:
        """Take up what walks came upon, walk after walk, step after step; gives how much of it was of use."""
        walks, order, weights = (
            np.concatenate([getattr(part, name) for part in steps]) for name in ("walks", "steps", "weights")
        )
        counted = weights >= 0
        walks, order, weights = walks[counted], order[counted], weights[counted]
        weights = weights[np.lexsort((order, walks))]
        _, first = np.unique(weights, return_index=True)
        new = weights[np.sort(first)]
        new = new[self.scores[new] == 0]
        use = len(self.useful(new))
        self.scores[new] = len(self.scores) - self._count - np.arange(len(new))
        self._count += len(new)
        self._missing = self._missing - np.bincount(self._groups(new), minlength=len(self._missing))
        return use


def _walk(walker: Walker, found: _Found, random: np.random.Generator) -> None:
    """Walks forwards and backwards in turn, until the counts are reached or there is little new to come upon."""
    pairs = 0
    while not found.done:
        batch = int(np.clip(found.missing // 32, 16, LARGEST_BATCH // 2))
        turn = np.arange(pairs, pairs + batch)
        steps = walker.forwards(2 * turn, walker.starts[turn % len(walker.starts)], random)
        steps += walker.backwards(2 * turn + 1, turn % len(walker.goals), random)
        pairs += batch
        if found.add(steps) < POOREST * 2 * batch:
            return


def _walk_through_the_rest(
    walker: Walker,
    found: _Found,
    firsts: dict[str, int],
    magnitudes: dict[str, NDArray[np.floating]],
    random: np.random.Generator,
) -> None:
    for calls, weights in _rest(walker, found, firsts, magnitudes, random):
        steps = []
        for call in np.unique(calls):
            here = np.flatnonzero(calls == call)
            new = here[np.isin(weights[here], found.useful(weights[here]))]
            if len(new):
                name = walker.names[call]
                steps += walker.through(int(call), weights[new] - firsts[name], new, random)
        if steps:
            found.add(steps)
        if found.done:
            return


def _rest(
    walker: Walker,
    found: _Found,
    firsts: dict[str, int],
    magnitudes: dict[str, NDArray[np.floating]],
    random: np.random.Generator,
) -> Iterator[tuple[Indices, Indices]]:
    """Weights on a path that no walk has come upon, each with its call, heavy ones likely first; a batch at a time."""
    calls, weights, keys = [], [], []
    for call, name in enumerate(walker.names):
        if name not in firsts or name in walker.names[:call]:
            continue
        inside = np.flatnonzero(walker.on_a_path(call))
        inside = inside[found.scores[inside + firsts[name]] == 0]
        magnitude = np.abs(magnitudes[name]).reshape(-1)[inside].astype(np.float64)
        with np.errstate(divide="ignore"):
            # The order of exponential waiting times is that of drawing without replacement by these rates.
            keys.append(random.standard_exponential(len(inside)) / magnitude)
        calls.append(np.full(len(inside), call))
        weights.append(inside + firsts[name])
    order = np.argsort(np.concatenate([np.empty(0), *keys]), kind="stable")
    call_of, weight_of = (np.concatenate([np.empty(0, np.int64), *part])[order] for part in (calls, weights))
    for start in range(0, len(order), LARGEST_BATCH // 4):
        stop = start + LARGEST_BATCH // 4
        yield call_of[start:stop], weight_of[start:stop]
