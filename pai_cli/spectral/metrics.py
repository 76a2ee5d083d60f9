"""What is measured from a layer's singular values: gaps, their means over left-regular subgraphs, full-spectrum norms.

[H23] Hoang, Liu, Marculescu, Wang, ICLR 2023. [F23] Hoang, Kundu, Liu, Wang, "Don't just prune by magnitude! Your mask
topology is a secret weapon", NeurIPS 2023. Every value carries an absolute error bound, inherited from sigma_1 and
sigma_2; where a quantity is not defined it is missing, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from pai_cli.errors import ParameterError, UsageError
from pai_cli.spectral.catalogue import FULL_SPECTRUM
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.formulas import MANY, ONE, Sigmas, Sizes, Term, gaps, mean, norm_of, spread
from pai_cli.spectral.graph import Array, BipartiteGraph, Counts, host
from pai_cli.spectral.parameters import flag, one_of, shown
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import EPS, Measure, Outcome, Pairs, SingularPair
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.solvers import DEFAULT, SolverOptions
from pai_cli.spectral.subgraphs import RegularSubgraphs, regular_subgraphs
from pai_cli.spectral.validation import matrix_of
from pai_cli.spelling import option

NO_WEIGHTS = f"needs {option('weights')}"

FANS = ("fan_in_std", "fan_in_cv", "fan_out_std", "fan_out_cv")
GAPS = ("dr", "dr_bound", "dr_norm", "ds", "ds_bound", "ds_norm")
MEANS = {"dr": "dr_imdb", "dr_norm": "dr_imdb_norm", "ds": "ds_imdb", "ds_norm": "ds_imdb_norm"}


@dataclass(frozen=True)
class MetricOptions:
    """What to measure and how.

    `solver`: tolerances of the engine. `convention`: whose gaps and subgraphs. `expansion_weighted`: multiply each
    subgraph's term by max(n_L, n_R) / (n_L + n_R - 1), as F23 always does. `dense`: also measure the unmasked layer, for
    l2_dense. Raises `ParameterError` for values of another type, `UsageError` for a factor that is there anyway.
    """

    solver: SolverOptions = DEFAULT
    convention: Convention = Convention.H23
    expansion_weighted: bool = False
    dense: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.solver, SolverOptions):
            raise ParameterError(f"solver={shown(self.solver)}: give SolverOptions")
        object.__setattr__(self, "convention", one_of("convention", self.convention, Convention))
        if flag("expansion_weighted", self.expansion_weighted) and self.convention.weighs_expansion:
            there = f"{option('convention', self.convention)} has that factor always"
            raise UsageError(f"{option('expansion_weighted')}: {there}; leave it out")
        flag("dense", self.dense)

    @property
    def weighs_expansion(self) -> bool:
        """Whether subgraphs' terms have the factor."""
        return self.expansion_weighted or self.convention.weighs_expansion


@dataclass(frozen=True)
class LayerMetrics:
    """One layer's counts and measures (names as in `catalogue.METRICS`), and how its singular values were found.

    `structure`: of the whole mask. `outcomes`: of every pair that was asked for: mask, weights, each subgraph's.
    `convention`: whose gaps and subgraphs these are.
    """

    counts: Counts
    measures: dict[str, Measure]
    n_regular: int
    structure: SingularPair
    outcomes: tuple[Outcome, ...]
    convention: Convention = Convention.H23

    @property
    def note(self) -> str:
        """What a person should know before using the numbers; empty when every singular value is proved."""
        return "; ".join(dict.fromkeys(o.value for o in self.outcomes if o is not Outcome.PROVED))


def measure_layer(
    mask: Array,
    weights: Array | None = None,
    options: MetricOptions | None = None,
    dense: dict[str, Measure] | None = None,
) -> LayerMetrics:
    """All of sections 2 to 4 for one layer.

    `mask`: (rows, columns), boolean or 0/1. `weights`: the same shape, or None, which leaves section 4 missing. `dense`:
    the four full-spectrum measures of the unmasked layer when they are known already (`dense_reference`); to be given for
    a grouped layer, whose matrix does not tell where weights stand. Raises `ArrayError` and `NotFiniteError`.
    """
    options = options or MetricOptions()
    layer = prepare_layer(mask, weights, options.convention)
    return measures_of(layer, singular_pairs(layer.problems, options.solver), options, dense)


@dataclass(frozen=True)
class PreparedLayer:
    """A layer's graph and subgraphs, before anything is solved, so that many layers may be solved together.

    `weights`: (rows, columns), or None. `problems`: of the mask, and with weights of `abs(W) * M` too.
    """

    graph: BipartiteGraph
    subgraphs: RegularSubgraphs
    weights: Array | None

    @property
    def problems(self) -> list[Problems]:
        """What the layer asks the solvers for."""
        kinds = (False,) if self.weights is None else (False, True)
        return [self.subgraphs.problems(self.graph, weighted=weighted) for weighted in kinds]


def prepare_layer(mask: Array, weights: Array | None = None, convention: Convention = Convention.H23) -> PreparedLayer:
    """The graph of a layer: `mask` (rows, columns), boolean or 0/1; `weights` of the same shape. Neither is kept.

    `convention`: which subgraphs count. Raises `ArrayError` and `NotFiniteError` for what is no mask or no weights.
    """
    return prepare_layers([mask], [weights], convention)[0]


def prepare_layers(
    masks: Sequence[Array], weights: Sequence[Array | None], convention: Convention = Convention.H23
) -> list[PreparedLayer]:
    """`prepare_layer` of many: the tensors among them, which must be on one device, are gathered there together."""
    at = [k for k, mask in enumerate(masks) if is_torch_array(mask)]
    tensors = iter(graphs_of([masks[k] for k in at], [weights[k] for k in at]))
    prepared = []
    for mask, own in zip(masks, weights, strict=True):
        graph = next(tensors) if is_torch_array(mask) else BipartiteGraph(mask, own)
        prepared.append(PreparedLayer(graph, regular_subgraphs(graph, convention), graph.weights))
    return prepared


def measures_of(
    layer: PreparedLayer, solved: Sequence[Pairs], options: MetricOptions, dense: dict[str, Measure] | None = None
) -> LayerMetrics:
    """The measures of a layer that was prepared by the options' convention and whose problems are solved.

    Arguments are as of `measure_layer`.
    """
    structure, weighted = solved[0], solved[1] if len(solved) > 1 else None
    counts, subgraphs = layer.graph.counts, layer.subgraphs
    places = subgraphs.places(layer.graph)
    pair = structure[0]
    measures = {"sigma_1": pair.first, "sigma_2": pair.second}
    measures |= _fans(layer.graph)
    measures |= _layer_measures(counts, pair, options.convention)
    measures |= _regular_measures(counts, subgraphs, structure.take(places), options)
    if weighted is None:
        measures |= dict.fromkeys(("lambda", "lambda_imsg", "l2", "l2_dense"), Measure.missing(NO_WEIGHTS))
    else:
        reason = _without_gaps(counts, options.convention) if options.convention.conditions_lambda else None
        measures["lambda"] = weighted[0].gap if reason is None else Measure.missing(reason)
        measures["lambda_imsg"] = _mean_gap(counts, subgraphs, weighted.take(places), options)
        measures["l2"] = _full_spectrum_norm(measures)
        if options.dense:
            measures["l2_dense"] = _distance(measures, dense or dense_reference(layer.weights, options))
    outcomes = (*structure.outcome, *(weighted.outcome if weighted is not None else ()))
    return LayerMetrics(counts, measures, len(subgraphs), pair, outcomes, options.convention)


def dense_reference(weights: Array, options: MetricOptions, ones: Array | None = None) -> dict[str, Measure]:
    """The four full-spectrum measures of the unmasked layer: every weight kept.

    `weights`: (rows, columns). `ones`: where a weight stands at all, for a grouped layer whose matrix is zero elsewhere.
    """
    weights = matrix_of(weights, "the weights")
    xp = array_namespace(weights)
    mask = xp.ones_like(weights, dtype=xp.bool) if ones is None else ones
    measures = measure_layer(mask, weights, replace(options, dense=False)).measures
    return {name: measures[name] for name in FULL_SPECTRUM}


def _fans(graph: BipartiteGraph) -> dict[str, Measure]:
    """How unequal the fans of the vertices with an edge are."""
    if graph.edges == 0:
        return dict.fromkeys(FANS, Measure.missing(Outcome.COLLAPSED.value))
    spreads = (spread(host(degrees), graph.edges) for degrees in (graph.right_degrees, graph.left_degrees))
    return dict(zip(FANS, (one for both in spreads for one in both), strict=True))


def _without_gaps(counts: Counts, convention: Convention) -> str | None:
    """Why a layer has no gaps, if so."""
    if counts.edges == 0:
        return Outcome.COLLAPSED.value
    return None if convention.has_gaps(counts.edges, counts.n_L, counts.n_R) else convention.without_gaps


def _layer_measures(counts: Counts, pair: SingularPair, convention: Convention = Convention.H23) -> dict[str, Measure]:
    """Section 2 of the whole graph."""
    names = (*GAPS, "expansion", "narc")
    reason = _without_gaps(counts, convention)
    if reason is not None:
        return dict.fromkeys(names, Measure.missing(reason))
    if pair.sigma_2 is None or pair.sigma_2_error is None or pair.sigma_1 is None or pair.sigma_1_error is None:
        measures = dict.fromkeys(GAPS, Measure.missing(pair.outcome.value))
    else:
        sigmas = Sigmas(pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error)
        terms = gaps(Sizes(counts.edges, counts.n_L, counts.n_R), sigmas, ONE)
        measures = {name: Measure(*term) for name, term in terms.items()}
    measures["expansion"] = Measure.of(counts.n_R / counts.n_L)
    measures["narc"] = _narc(counts, pair)
    return measures


def _narc(counts: Counts, pair: SingularPair) -> Measure:
    """((sigma_2^2 / 4 + 1) sqrt(n_L n_R) - |2e - (d_L / n_R0) n_L n_R|) / (n_L0 n_R0) [H23]."""
    if pair.sigma_2 is None or pair.sigma_2_error is None:
        return Measure.missing(pair.outcome.value)
    pairs = counts.n_L * counts.n_R
    expected = counts.d_L / counts.n_R0 * pairs
    size = counts.size
    value = ((pair.sigma_2**2 / 4 + 1) * math.sqrt(pairs) - abs(2 * counts.edges - expected)) / size
    slope = (pair.sigma_2 + pair.sigma_2_error) / 2 * math.sqrt(pairs) / size
    return Measure(value, slope * pair.sigma_2_error + 8 * EPS * (abs(value) + 2 * counts.edges / size))


def _regular_measures(
    counts: Counts, subgraphs: RegularSubgraphs, pairs: Pairs, options: MetricOptions
) -> dict[str, Measure]:
    """Section 3: means over the kept K_d, whose `pairs` are given."""
    missing = _no_mean(counts, subgraphs, pairs, options.convention)
    if missing is not None:
        measures = dict.fromkeys(MEANS.values(), missing)
        if not len(subgraphs):
            return measures | {"expansion_max": missing, "expansion_mean": missing}
    else:
        sigmas = Sigmas(pairs.sigma_1, pairs.sigma_2, pairs.error_1, pairs.error_2)
        terms = gaps(Sizes(subgraphs.edges, subgraphs.n_L, subgraphs.n_R), sigmas, MANY)
        measures = {of_all: _mean_term(terms[one], subgraphs, options) for one, of_all in MEANS.items()}
    ratios = subgraphs.n_R / subgraphs.n_L
    measures["expansion_max"] = Measure.of(float(np.max(ratios)))
    measures["expansion_mean"] = Measure.of(math.fsum(ratios) / len(ratios))
    return measures


def _mean_gap(counts: Counts, subgraphs: RegularSubgraphs, pairs: Pairs, options: MetricOptions) -> Measure:
    """lambda_imsg: the mean of sigma_1 - sigma_2 of the weighted K_d."""
    missing = _no_mean(counts, subgraphs, pairs, options.convention)
    return _mean_term(Term(*pairs.gaps), subgraphs, options) if missing is None else missing


def _mean_term(term: Term, subgraphs: RegularSubgraphs, options: MetricOptions) -> Measure:
    """The mean over the K_d, each times its factor where that is asked for."""
    values, errors = term
    if options.weighs_expansion:
        factors = np.maximum(subgraphs.n_L, subgraphs.n_R) / (subgraphs.n_L + subgraphs.n_R - 1)
        values, errors = values * factors, errors * factors
    return mean(values.tolist(), errors.tolist())


def _no_mean(counts: Counts, subgraphs: RegularSubgraphs, pairs: Pairs, convention: Convention) -> Measure | None:
    """Why there is no mean, if so. One subgraph without an answer leaves none: the rest would be another quantity."""
    if counts.edges == 0:
        return Measure.missing(Outcome.COLLAPSED.value)
    if not len(subgraphs):
        return Measure.missing(convention.without_subgraph)
    outcome = pairs.first_without()
    return None if outcome is None else Measure.missing(outcome.value)


def _full_spectrum_norm(measures: dict[str, Measure]) -> Measure:
    terms = [measures[name] for name in FULL_SPECTRUM]
    return _unfinished(terms) or norm_of(terms)


def _distance(measures: dict[str, Measure], dense: dict[str, Measure]) -> Measure:
    pairs = [(measures[name], dense[name]) for name in FULL_SPECTRUM]
    unfinished = _unfinished([measure for pair in pairs for measure in pair])
    if unfinished is not None:
        return unfinished
    value = math.hypot(*((a.value or 0.0) - (b.value or 0.0) for a, b in pairs))
    return Measure.of(value, math.hypot(*((a.error or 0.0) + (b.error or 0.0) for a, b in pairs)) + EPS * value)


def _unfinished(measures: list[Measure]) -> Measure | None:
    """A term that exists but was not found: counting it as 0, as an undefined one, would be a wrong number."""
    return next((m for m in measures if m.reason == Outcome.NOT_CONVERGED.value), None)
