"""What is measured from a layer's singular values: gaps, their means over left-regular subgraphs, full-spectrum norms.

[H23] Hoang, Liu, Marculescu, Wang, ICLR 2023. [F23] Hoang, Kundu, Liu, Wang, "Don't just prune by magnitude! Your mask
topology is a secret weapon", NeurIPS 2023. Every value carries an absolute error bound, inherited from sigma_1 and
sigma_2; where a quantity is not defined it is missing, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from array_api_compat import is_torch_array

from pai_cli.errors import ParameterError, UsageError
from pai_cli.spectral.catalogue import FULL_SPECTRUM
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.formulas import Sigmas, Sizes, Term, gaps, means, norms, spreads, sums_of
from pai_cli.spectral.graph import Array, BipartiteGraph, Counts, host
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.parameters import flag, one_of, shown
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import EPS, Floats, Ints, Measure, Outcome, Pairs
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.solvers import DEFAULT, SolverOptions
from pai_cli.spectral.sparse import SparseGraph
from pai_cli.spectral.subgraphs import RegularSubgraphs, regular_subgraphs
from pai_cli.spectral.table import Column, LayerReport, LayerTable, Tensor
from pai_cli.spectral.validation import Entries, matrix_of
from pai_cli.spelling import option

NO_WEIGHTS = f"needs {option('weights')}"

NO_UNMASKED = "a graph by itself is of no unmasked layer"

NORMS = ("l2", "l2_dense")
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


Reasons = list[str | None]  # why a layer has no value, None where it has one


@dataclass(frozen=True)
class PreparedLayer:
    """A layer's graph and subgraphs, before anything is solved, so that many layers may be solved together.

    `weights`: (rows, columns), or None. `weighted`: whether there are any.
    """

    graph: BipartiteGraph
    subgraphs: RegularSubgraphs
    weights: Array | None
    weighted: bool

    @staticmethod
    def of(graph: BipartiteGraph, convention: Convention) -> PreparedLayer:
        """The layer of a graph, with weights where that has them."""
        return PreparedLayer(graph, regular_subgraphs(graph, convention), graph.weights, graph.weights is not None)

    @cached_property
    def problems(self) -> list[Problems]:
        """What the layer asks the solvers for: of the mask, and with weights of `abs(W) * M` too."""
        kinds = (False, True) if self.weighted else (False,)
        return [self.subgraphs.problems(self.graph, weighted=weighted) for weighted in kinds]

    def ready(self) -> PreparedLayer:
        """The same with all that is worked out from its arrays when it is first asked for."""
        for request in self.problems:
            _ = request.scales
        _ = self.graph.counts
        return self


def prepare_layer(mask: Array, weights: Array | None = None, convention: Convention = Convention.H23) -> PreparedLayer:
    """The graph of a layer: `mask` (rows, columns), boolean or 0/1; `weights` of the same shape. Neither is kept.

    `convention`: which subgraphs count. Raises `ArrayError` and `NotFiniteError` for what is no mask or no weights.
    """
    graph = graphs_of([mask], [weights])[0] if is_torch_array(mask) else BipartiteGraph(mask, weights)
    return PreparedLayer.of(graph, convention)


def prepare_matrix(matrix: Array | Entries, convention: Convention, *, weighted: bool) -> PreparedLayer:
    """The graph of a matrix by itself: an edge is where it is not 0, whose absolute value is its weight where `weighted`.

    Raises `ArrayError` and `NotFiniteError`.
    """
    if isinstance(matrix, Entries):
        graph: BipartiteGraph = SparseGraph(matrix)
    else:
        graph = BipartiteGraph(matrix != 0, matrix if weighted else None)
    return PreparedLayer(graph, regular_subgraphs(graph, convention), None, weighted)


def measure_layer(
    mask: Array,
    weights: Array | None = None,
    options: MetricOptions | None = None,
    dense: dict[str, Measure] | None = None,
) -> LayerReport:
    """All of sections 2 to 4 for one layer.

    `mask`: (rows, columns), boolean or 0/1. `weights`: the same shape, or None, which leaves section 4 missing. `dense`:
    the four full-spectrum measures of the unmasked layer when they are known already (`dense_reference`); to be given for
    a grouped layer, whose matrix does not tell where weights stand. Raises `ArrayError` and `NotFiniteError`.
    """
    options = options or MetricOptions()
    layer = prepare_layer(mask, weights, options.convention)
    solved = singular_pairs(layer.problems, options.solver)
    if layer.weights is not None and options.dense:
        dense = dense or dense_reference(layer.weights, options)
    return measures_of([layer], solved, options, [dense])[0]


def dense_reference(weights: Array, options: MetricOptions) -> dict[str, Measure]:
    """The four full-spectrum measures of the unmasked layer: every weight kept.

    `weights`: (rows, columns), of a layer without groups, whose matrix is zero elsewhere.
    """
    weights = matrix_of(weights, "the weights")
    xp = array_namespace(weights)
    measures = measure_layer(xp.ones_like(weights, dtype=xp.bool), weights, replace(options, dense=False)).measures
    return {name: measures[name] for name in FULL_SPECTRUM}


@dataclass(frozen=True)
class _Parts:
    """The subgraphs of all layers, those of a layer together. `sizes`: how many each layer has."""

    edges: Ints
    n_L: Ints
    n_R: Ints
    sizes: Ints

    @staticmethod
    def of(layers: Sequence[PreparedLayer]) -> _Parts:
        every = [layer.subgraphs for layer in layers]
        return _Parts(
            np.concatenate([one.edges for one in every]),
            np.concatenate([one.n_L for one in every]),
            np.concatenate([one.n_R for one in every]),
            np.array([len(one) for one in every], dtype=np.int64),
        )


@dataclass(frozen=True)
class _Solved:
    """What was found of all layers' masks, or of their weights: of the `whole` layers, and of the `parts`."""

    whole: Pairs
    parts: Pairs

    @staticmethod
    def of(layers: Sequence[PreparedLayer], solved: Sequence[Pairs]) -> _Solved:
        every = Pairs.joined(solved)
        begin = np.cumsum([0, *map(len, solved)])[:-1]
        places = [first + layer.subgraphs.places(layer.graph) for first, layer in zip(begin, layers, strict=True)]
        return _Solved(every.take(begin), every.take(np.concatenate(places)))


def measures_of(
    layers: Sequence[PreparedLayer],
    solved: Sequence[Pairs],
    options: MetricOptions,
    dense: Sequence[dict[str, Measure] | None],
    tensors: Sequence[Tensor] | None = None,
) -> LayerTable:
    """The measures of layers that were prepared by the options' convention, all with weights or all without.

    `solved`: of all their `problems`, in order. `dense`: as of `measure_layer`, a layer each; not needed without weights.
    `tensors`: what the layers are called, where they are not just matrices.
    """
    names, shapes, layouts = zip(
        *(tensors or [Tensor("", (one.graph.n_R0, one.graph.n_L0)) for one in layers]), strict=True
    )
    kinds = len(solved) // len(layers)
    counts = Counts(*np.array([layer.graph.counts for layer in layers], dtype=np.int64).T)
    parts, structure = _Parts.of(layers), _Solved.of(layers, solved[::kinds])
    measures = {
        "sigma_1": _found(structure.whole.sigma_1, structure.whole.error_1, structure.whole.outcome),
        "sigma_2": _found(structure.whole.sigma_2, structure.whole.error_2, structure.whole.outcome),
    }
    measures |= _fans(layers, counts)
    measures |= _layer_measures(counts, structure.whole, options.convention)
    measures |= _regular_measures(counts, parts, structure.parts, options)
    if kinds == 1:
        measures |= dict.fromkeys(("lambda", "lambda_imsg", *NORMS), Column.missing(NO_WEIGHTS, len(layers)))
    else:
        measures |= _weighted_measures(counts, parts, _Solved.of(layers, solved[1::2]), options)
        terms = [measures[name] for name in FULL_SPECTRUM]
        measures["l2"] = norms(terms, _unfinished(terms))
        if options.dense:
            alone = all(layer.weights is None for layer in layers)
            measures["l2_dense"] = Column.missing(NO_UNMASKED, len(layers)) if alone else _distance(terms, dense)
    outcomes = [tuple(pairs.outcome) for pairs in solved]
    return LayerTable(
        names,
        shapes,
        layouts,
        counts,
        parts.sizes,
        measures,
        tuple(structure.whole.solver),
        tuple(sum(outcomes[at : at + kinds], ()) for at in range(0, len(outcomes), kinds)),
        options.convention,
    )


def _found(values: Floats, errors: Floats, outcomes: Sequence[Outcome]) -> Column:
    """What solvers found, as it is."""
    return Column.of(values, errors, _unanswered(values, outcomes, [None] * len(outcomes)))


def _unanswered(values: Floats, outcomes: Sequence[Outcome], reasons: Reasons) -> Reasons:
    """The reasons, and where there is none and no value either, the outcome."""
    answers = zip(values.tolist(), outcomes, reasons, strict=True)
    return [reason or (outcome.value if math.isnan(value) else None) for value, outcome, reason in answers]


def _collapsed(counts: Counts) -> Reasons:
    return [None if edges else Outcome.COLLAPSED.value for edges in counts.edges.tolist()]


def _fans(layers: Sequence[PreparedLayer], counts: Counts) -> dict[str, Column]:
    """How unequal the fans of the vertices with an edge are."""
    reasons, measures = _collapsed(counts), {}
    for name, side in (("fan_in", "right_degrees"), ("fan_out", "left_degrees")):
        degrees = [host(getattr(layer.graph, side)) for layer in layers]
        measures[f"{name}_std"], measures[f"{name}_cv"] = spreads(degrees, counts.edges, reasons)
    return measures


def _without_gaps(counts: Counts, convention: Convention) -> Reasons:
    """Why layers have no gaps, if so."""
    has = convention.has_gaps(counts.edges, counts.n_L, counts.n_R).tolist()
    pairs = zip(has, _collapsed(counts), strict=True)
    return [collapsed or (None if there else convention.without_gaps) for there, collapsed in pairs]


def _layer_measures(counts: Counts, pairs: Pairs, convention: Convention) -> dict[str, Column]:
    """Section 2 of whole graphs."""
    undefined = _without_gaps(counts, convention)
    reasons = _unanswered(pairs.sigma_2, pairs.outcome, undefined)
    sigmas = Sigmas(pairs.sigma_1, pairs.sigma_2, pairs.error_1, pairs.error_2)
    with np.errstate(divide="ignore", invalid="ignore"):  # where they are not defined
        terms = gaps(Sizes(counts.edges, counts.n_L, counts.n_R), sigmas)
        measures = {name: Column.of(*term, reasons) for name, term in terms.items()}
        measures["expansion"] = Column.computed(counts.n_R / counts.n_L, 0.0, undefined)
        measures["narc"] = _narc(counts, pairs, reasons)
    return measures


def _narc(counts: Counts, pairs: Pairs, reasons: Reasons) -> Column:
    """((sigma_2^2 / 4 + 1) sqrt(n_L n_R) - |2e - (d_L / n_R0) n_L n_R|) / (n_L0 n_R0) [H23]."""
    all_pairs, size = counts.n_L * counts.n_R, counts.size
    expected = counts.d_L / counts.n_R0 * all_pairs
    squares = np.array([one**2 for one in pairs.sigma_2.tolist()])
    values = ((squares / 4 + 1) * np.sqrt(all_pairs) - np.abs(2 * counts.edges - expected)) / size
    slope = (pairs.sigma_2 + pairs.error_2) / 2 * np.sqrt(all_pairs) / size
    return Column.of(values, slope * pairs.error_2 + 8 * EPS * (np.abs(values) + 2 * counts.edges / size), reasons)


def _regular_measures(counts: Counts, parts: _Parts, pairs: Pairs, options: MetricOptions) -> dict[str, Column]:
    """Section 3: means over the kept K_d, whose `pairs` are given."""
    reasons = _no_mean(counts, parts, pairs, options.convention)
    sigmas = Sigmas(pairs.sigma_1, pairs.sigma_2, pairs.error_1, pairs.error_2)
    terms = gaps(Sizes(parts.edges, parts.n_L, parts.n_R), sigmas)
    measures = {of_all: _mean_term(terms[one], parts, reasons, options) for one, of_all in MEANS.items()}
    ratios = parts.n_R / parts.n_L
    there = [None if size else reason for size, reason in zip(parts.sizes.tolist(), reasons, strict=True)]
    ends = np.cumsum(parts.sizes).tolist()
    most = [max(ratios[a:b].tolist(), default=np.nan) for a, b in pairwise([0, *ends])]
    measures["expansion_max"] = Column.computed(np.array(most), 0.0, there)
    with np.errstate(invalid="ignore"):
        average = np.array(sums_of(ratios, parts.sizes)) / parts.sizes
    measures["expansion_mean"] = Column.computed(average, 0.0, there)
    return measures


def _weighted_measures(counts: Counts, parts: _Parts, solved: _Solved, options: MetricOptions) -> dict[str, Column]:
    """Section 4's gaps: sigma_1 - sigma_2 of `abs(W) * M`, and its mean over the K_d."""
    convention, whole = options.convention, solved.whole
    undefined: Reasons = [None] * len(whole)
    if convention.conditions_lambda:
        undefined = _without_gaps(counts, convention)
    without = _no_mean(counts, parts, solved.parts, convention)
    return {
        "lambda": Column.computed(*whole.gaps, _unanswered(whole.sigma_2, whole.outcome, undefined)),
        "lambda_imsg": _mean_term(Term(*solved.parts.gaps), parts, without, options),
    }


def _mean_term(term: Term, parts: _Parts, reasons: Reasons, options: MetricOptions) -> Column:
    """The mean over each layer's K_d, each times its factor where that is asked for."""
    values, errors = term
    if options.weighs_expansion:
        factors = np.maximum(parts.n_L, parts.n_R) / (parts.n_L + parts.n_R - 1)
        values, errors = values * factors, errors * factors
    return means(values, errors, parts.sizes, reasons)


def _no_mean(counts: Counts, parts: _Parts, pairs: Pairs, convention: Convention) -> Reasons:
    """Why there is no mean, if so. One subgraph without an answer leaves none: the rest would be another quantity."""
    reasons = _collapsed(counts)
    for at, size in enumerate(parts.sizes.tolist()):
        if not size and reasons[at] is None:
            reasons[at] = convention.without_subgraph
    owners = np.repeat(np.arange(len(reasons)), parts.sizes)
    for part in np.flatnonzero(np.isnan(pairs.sigma_2)).tolist():
        reasons[owners[part]] = reasons[owners[part]] or pairs.outcome[part].value
    return reasons


def _distance(terms: Sequence[Column], dense: Sequence[dict[str, Measure] | None]) -> Column:
    others = [Column.listed([one[name] for one in dense if one is not None]) for name in FULL_SPECTRUM]
    between = [
        Column(
            np.nan_to_num(one.values) - np.nan_to_num(other.values),
            np.nan_to_num(one.errors) + np.nan_to_num(other.errors),
            one.reasons,
        )
        for one, other in zip(terms, others, strict=True)
    ]
    return norms(between, _unfinished([*terms, *others]))


def _unfinished(terms: Sequence[Column]) -> Reasons:
    """A term that exists but was not found: counting it as 0, as an undefined one, would be a wrong number."""
    why = Outcome.NOT_CONVERGED.value
    return [why if why in row else None for row in zip(*(term.reasons for term in terms), strict=True)]
