"""A whole network's measures: the mean over its layers of each, and over how many layers that was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
from array_api_compat import is_torch_array

from pai_cli.spectral.catalogue import FULL_SPECTRUM, METRICS
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.formulas import means
from pai_cli.spectral.graph import Array, BipartiteGraph, unroll
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.metrics import (
    MetricOptions,
    PreparedLayer,
    measures_of,
    prepare_matrix,
)
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.result import Measure, Outcome, Pairs
from pai_cli.spectral.singular import SolvingPairs
from pai_cli.spectral.spreading import Spread, in_turn
from pai_cli.spectral.table import Column, LayerTable, Tensor

BUNDLES = 8  # of layers, at most, each prepared by one call: every call that ends wakes the thread that waits for all

FIRST_SHARE = 0.5  # of all weights, in the layers that are prepared before the first problem is solved

UNPROVED = {Outcome.NOT_PROVED, Outcome.WIDE_NOT_PROVED, Outcome.TOO_FULL}


@dataclass(frozen=True)
class LayerInput:
    """A layer as it stands in a file: `mask` and `weights` of the same shape, not yet unrolled.

    Of a graph that is no layer of a network `mask` is its whole matrix, an array or `Entries`, which has the weights in it
    where it is `weighted`: all is known but what an unmasked layer would be.
    """

    name: str
    mask: Array
    weights: Array | None = None
    layout: Layout = PLAIN
    weighted: bool | None = None


@dataclass(frozen=True)
class NetworkReport:
    """Every layer's report and the network's means.

    `measures[name]` is the mean over the layers where that measure is present; `counted[name]` is how many those were.
    `kept` of `total` weights are kept; `collapsed` names the layers with none, `unproved` those with singular values that
    are not proved to be the two largest, `full` those among them whose factors fill too much memory for a proof,
    `unanswered` those where a solver ended without singular values, `assumed` those of which nobody told the layout.
    `layers` is empty where only the network was asked for. `convention`: whose gaps and subgraphs these are.
    """

    layers: LayerTable
    measures: dict[str, Measure]
    counted: dict[str, int]
    kept: int
    total: int
    collapsed: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    convention: Convention = Convention.H23
    full: tuple[str, ...] = ()

    @property
    def density(self) -> float:
        """Share of weights kept, 0 to 1."""
        return self.kept / self.total


@dataclass
class DenseCache:
    """Measures of unmasked layers, kept across the masks of one checkpoint: they depend on its weights only."""

    known: dict[tuple[str, Layout], dict[str, Measure]] = field(default_factory=dict)

    def of(
        self, layers: Sequence[LayerInput], options: MetricOptions, spread: Spread | None = None
    ) -> list[dict[str, Measure] | None]:
        """Each unmasked layer's four measures, those that are not known measured together; None where they are not asked
        for.
        """
        asked = {(one.name, one.layout): one for one in layers if options.dense and one.weights is not None}
        new = [key for key in asked if key not in self.known]
        if new:
            self.known.update(zip(new, unmasked([asked[key] for key in new], options, spread), strict=True))
        return [self.known[key] if (key := (one.name, one.layout)) in asked else None for one in layers]


def unmasked(layers: Sequence[LayerInput], options: MetricOptions, spread: Spread | None) -> list[dict[str, Measure]]:
    """The four full-spectrum measures of layers with every weight kept."""
    whole = []
    for one in layers:
        xp = array_namespace(one.weights)
        whole.append(replace(one, mask=xp.ones_like(one.weights, dtype=xp.bool)))
    measured = measure_together(whole, replace(options, dense=False), spread=spread)
    return [{name: report.measures[name] for name in FULL_SPECTRUM} for report in measured]


def measure_together(
    layers: Sequence[LayerInput],
    options: MetricOptions,
    cache: DenseCache | None = None,
    spread: Spread | None = None,
) -> LayerTable:
    """What is measured of layers that are held at once, with the weights of all or of none: their problems are solved
    together, on a GPU in a few batches. `spread`: who works beside this thread: one solves what is ready while the others
    prepare the rest. No number depends on it.
    """
    at = [k for k, one in enumerate(layers) if is_torch_array(one.mask)]
    tensors = dict(
        zip(at, graphs_of(*zip(*(_matrices(layers[k]) for k in at), strict=True)) if at else (), strict=True)
    )
    given = [(layer, tensors.get(k)) for k, layer in enumerate(layers)]
    ready = partial(_prepared, convention=options.convention, ready=spread is not None)
    prepared: dict[int, PreparedLayer] = {}
    pairs: dict[int, list[Pairs]] = {}
    with ExitStack() as ending:
        begun: list[tuple[Sequence[int], SolvingPairs]] = []
        for places in _in_portions(given) if spread is not None else [range(len(given))]:
            bundles = [places[k::BUNDLES] for k in range(min(BUNDLES, len(places)))]
            layers_ready = (spread or in_turn)(ready, [[given[k] for k in some] for some in bundles])
            for _, solving in begun:  # one has been at work; who is done with preparing joins
                solving.join()
            for some, layers_of in zip(bundles, layers_ready, strict=True):
                prepared |= zip(some, layers_of, strict=True)
            requests = [request for k in places for request in prepared[k].problems]
            turn = in_turn if begun else spread  # what is asked of those at work now, they do later
            solving = ending.enter_context(closing(SolvingPairs(requests, options.solver, spread, turn)))
            begun.append((places, solving))
        for places, solving in begun:
            own = iter(solving.pairs())
            pairs |= {k: list(islice(own, len(prepared[k].problems))) for k in places}
    dense = (cache or DenseCache()).of(layers, options, spread)
    names = [Tensor(layer.name, tuple(layer.mask.shape), layer.layout) for layer in layers]
    every = range(len(given))
    solved = [pair for k in every for pair in pairs[k]]
    return measures_of([prepared[k] for k in every], solved, options, dense, names)


Given = tuple[LayerInput, BipartiteGraph | None]  # a layer, and its graph where that is there already


def _in_portions(given: Sequence[Given]) -> list[Sequence[int]]:
    """Places of layers in two portions, the larger layers first: most of the work is there while the rest is prepared.

    All at once where graphs are tensors, whose problems a device solves in as few batches as it can.
    """
    sizes = np.array([math.prod(layer.mask.shape) for layer, _ in given], dtype=np.float64)
    order = np.argsort(-sizes, kind="stable")
    first = int(np.searchsorted(np.cumsum(sizes[order]), FIRST_SHARE * np.sum(sizes))) + 1
    if any(graph is not None for _, graph in given) or first >= len(given):
        return [range(len(given))]
    return [order[:first].tolist(), order[first:].tolist()]


def _matrices(layer: LayerInput) -> tuple[Array, Array | None]:
    """The matrices of a layer's mask and weights."""
    return unroll(layer.mask, layer.layout), None if layer.weights is None else unroll(layer.weights, layer.layout)


def _prepared(given: Sequence[Given], convention: Convention, *, ready: bool) -> list[PreparedLayer]:
    """The layers' graphs, unless they are there already; `ready`: with all that is worked out when it is first asked for."""
    prepared = []
    for layer, graph in given:
        if layer.weighted is not None:
            one = prepare_matrix(layer.mask, convention, weighted=layer.weighted)
        else:  # weights as they are: nobody writes to them before all is measured
            one = PreparedLayer.of(graph or BipartiteGraph(*_matrices(layer), copy=False), convention)
        prepared.append(one.ready() if ready else one)
    return prepared


def summarise(layers: LayerTable) -> NetworkReport:
    """The network's means of at least one layer's measures."""
    none = Column.missing("not measured", len(layers))
    columns = [layers.measures.get(name, none) for name in METRICS]
    values, errors = (np.array([getattr(column, kind) for column in columns]) for kind in ("values", "errors"))
    there = ~np.isnan(values)
    counted = np.count_nonzero(there, axis=1)
    reasons = [_shared_reason(column) if None not in column.reasons else None for column in columns]
    found = means(values[there], errors[there], counted, reasons)
    empty = (layers.counts.edges == 0).tolist()
    return NetworkReport(
        layers,
        {name: found[at] for at, name in enumerate(METRICS)},
        dict(zip(METRICS, counted.tolist(), strict=True)),
        int(layers.counts.edges.sum()),
        int(layers.totals.sum()),
        layers.where(empty),
        layers.where(not UNPROVED.isdisjoint(outcomes) for outcomes in layers.outcomes),
        layers.unanswered,
        layers.where(not layout.known for layout in layers.layouts),
        layers.convention,
        layers.where(Outcome.TOO_FULL in outcomes for outcomes in layers.outcomes),
    )


def _shared_reason(column: Column) -> str:
    return "; ".join(sorted({reason for reason in column.reasons if reason is not None}))
