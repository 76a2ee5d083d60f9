"""A whole network's measures: the mean over its layers of each, and over how many layers that was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from array_api_compat import array_namespace, is_torch_array

from pai_cli.spectral.catalogue import FULL_SPECTRUM, METRICS
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.formulas import mean_of
from pai_cli.spectral.graph import Array, unroll
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.metrics import (
    LayerMetrics,
    MetricOptions,
    dense_reference,
    measures_of,
    prepare_layers,
)
from pai_cli.spectral.result import Measure, Outcome
from pai_cli.spectral.singular import singular_pairs

UNPROVED = {Outcome.NOT_PROVED, Outcome.WIDE_NOT_PROVED}


@dataclass(frozen=True)
class LayerInput:
    """A layer as it stands in a file: `mask` and `weights` of the same shape, not yet unrolled."""

    name: str
    mask: Array
    weights: Array | None = None
    layout: Layout = PLAIN


@dataclass(frozen=True)
class LayerReport:
    """A layer's name, tensor shape, measures, and the layout by which it was unrolled, which may be assumed."""

    name: str
    shape: tuple[int, ...]
    metrics: LayerMetrics
    layout: Layout = PLAIN

    @property
    def parameters(self) -> int:
        """Weights in the tensor, kept or not (a grouped layer's matrix has more entries, all zero outside the groups)."""
        return math.prod(self.shape)

    @property
    def answered(self) -> bool:
        """Whether every solver found singular values."""
        return Outcome.NOT_CONVERGED not in self.metrics.outcomes


@dataclass(frozen=True)
class NetworkReport:
    """Every layer's report and the network's means.

    `measures[name]` is the mean over the layers where that measure is present; `counted[name]` is how many those were.
    `kept` of `total` weights are kept; `collapsed` names the layers with none, `unproved` those with singular values that
    are not proved to be the two largest, `unanswered` those where a solver ended without singular values, `assumed` those
    of which nobody told the layout. `layers` is empty where only the network was asked for. `convention`: whose gaps and
    subgraphs these are.
    """

    layers: tuple[LayerReport, ...]
    measures: dict[str, Measure]
    counted: dict[str, int]
    kept: int
    total: int
    collapsed: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    convention: Convention = Convention.H23

    @property
    def density(self) -> float:
        """Share of weights kept, 0 to 1."""
        return self.kept / self.total


@dataclass
class DenseCache:
    """Measures of unmasked layers, kept across the masks of one checkpoint: they depend on its weights only."""

    known: dict[tuple[str, Layout], dict[str, Measure]] = field(default_factory=dict)

    def of(self, layer: LayerInput, options: MetricOptions) -> dict[str, Measure] | None:
        """The unmasked layer's four measures, or None when they are not asked for."""
        if layer.weights is None or not options.dense:
            return None
        key = (layer.name, layer.layout)
        if key not in self.known:
            xp = array_namespace(layer.weights)
            ones = unroll(xp.ones_like(layer.weights, dtype=xp.bool), layer.layout)
            self.known[key] = dense_reference(unroll(layer.weights, layer.layout), options, ones)
        return self.known[key]

    def fill(self, layers: Sequence[LayerInput], options: MetricOptions) -> None:
        """Take in the measures of all of these unmasked layers that are asked for and not known, measured together."""
        new = {
            (one.name, one.layout): one for one in layers if options.dense and (one.name, one.layout) not in self.known
        }
        if not new:
            return
        whole = []
        for one in new.values():
            xp = array_namespace(one.weights)
            whole.append(replace(one, mask=xp.ones_like(one.weights, dtype=xp.bool)))
        for key, report in zip(new, measure_together(whole, replace(options, dense=False)), strict=True):
            self.known[key] = {name: report.metrics.measures[name] for name in FULL_SPECTRUM}


def measure_together(
    layers: Sequence[LayerInput], options: MetricOptions, cache: DenseCache | None = None
) -> list[LayerReport]:
    """Reports of layers that are held at once: their problems are solved together, on a GPU in a few batches."""
    cache = cache or DenseCache()
    cache.fill([layer for layer in layers if layer.weights is not None and is_torch_array(layer.weights)], options)
    masks = [unroll(layer.mask, layer.layout) for layer in layers]
    weights = [None if layer.weights is None else unroll(layer.weights, layer.layout) for layer in layers]
    prepared = prepare_layers(masks, weights, options.convention)
    problems = [one.problems for one in prepared]
    solved = iter(singular_pairs([request for requests in problems for request in requests], options.solver))
    reports = []
    for layer, one, requests in zip(layers, prepared, problems, strict=True):
        metrics = measures_of(one, [next(solved) for _ in requests], options, cache.of(layer, options))
        reports.append(LayerReport(layer.name, tuple(layer.mask.shape), metrics, layer.layout))
    return reports


def summarise(layers: Iterable[LayerReport]) -> NetworkReport:
    """The network's means of at least one layer's report."""
    reports = tuple(layers)
    measures, counted = {}, {}
    for name in METRICS:
        column = [r.metrics.measures[name] for r in reports if name in r.metrics.measures]
        present = [m for m in column if m.present]
        counted[name] = len(present)
        measures[name] = mean_of(present) if present else Measure.missing(_shared_reason(column))
    kept = sum(r.metrics.counts.edges for r in reports)
    total = sum(r.parameters for r in reports)
    collapsed = tuple(r.name for r in reports if r.metrics.counts.edges == 0)
    unproved = tuple(r.name for r in reports if UNPROVED & set(r.metrics.outcomes))
    unanswered = tuple(r.name for r in reports if not r.answered)
    assumed = tuple(r.name for r in reports if not r.layout.known)
    return NetworkReport(
        reports,
        measures,
        counted,
        kept,
        total,
        collapsed,
        unproved,
        unanswered,
        assumed,
        reports[0].metrics.convention,
    )


def _shared_reason(column: list[Measure]) -> str:
    reasons = sorted({m.reason for m in column if m.reason is not None})
    return "; ".join(reasons) if reasons else "not measured"
