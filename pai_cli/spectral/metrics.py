"""What is measured from a layer's singular values: gaps, their means over left-regular subgraphs, full-spectrum norms.

[H23] Hoang, Liu, Marculescu, Wang, ICLR 2023. [F23] Hoang, Kundu, Liu, Wang, "Don't just prune by magnitude! Your mask
topology is a secret weapon", NeurIPS 2023. Every value carries an absolute error bound, inherited from sigma_1 and
sigma_2; where a quantity is not defined it is missing, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from array_api_compat import array_namespace

from pai_cli.spectral.bipartite import Array, BipartiteGraph, Counts
from pai_cli.spectral.catalogue import FULL_SPECTRUM
from pai_cli.spectral.regular import LEAST_DEGREE, RegularSubgraph, regular_subgraphs
from pai_cli.spectral.result import EPS, Measure, Outcome, SingularPair
from pai_cli.spectral.singular import DEFAULT, SolverOptions, structure_pair, weighted_pair

LOW_DEGREE = "mean degree below 3"
NO_SUBGRAPH = "no left-regular subgraph with mean degrees of 3 or more"
NO_WEIGHTS = "needs --weights"


@dataclass(frozen=True)
class MetricOptions:
    """What to measure and how.

    `solver`: tolerances of the engine. `expansion_weighted`: multiply each subgraph's term by
    max(n_L, n_R) / (n_L + n_R - 1), as the authors' released scripts offer [F23]. `dense`: also measure the unmasked
    layer, for l2_dense.
    """

    solver: SolverOptions = DEFAULT
    expansion_weighted: bool = False
    dense: bool = True


@dataclass(frozen=True)
class LayerMetrics:
    """One layer's counts and measures (names as in `catalogue.METRICS`), and how its singular values were found.

    `structure`: of the whole mask. `outcomes`: of every pair that was asked for: mask, weights, each subgraph's.
    """

    counts: Counts
    measures: dict[str, Measure]
    n_regular: int
    structure: SingularPair
    outcomes: tuple[Outcome, ...]

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

    `mask`: (rows, columns), boolean. `weights`: the same shape, or None, which leaves section 4 missing. `dense`: the
    four full-spectrum measures of the unmasked layer when they are known already (`dense_reference`); to be given for a
    grouped layer, whose matrix does not tell where weights stand.
    """
    options = options or MetricOptions()
    graph = BipartiteGraph(mask, weights)
    pair = structure_pair(graph, options.solver)
    subgraphs = tuple(regular_subgraphs(graph, weights=weights is not None, options=options.solver))
    measures = {"sigma_1": pair.first, "sigma_2": pair.second}
    counts = graph.counts
    measures |= _layer_measures(counts, pair)
    measures |= _regular_measures(counts, subgraphs, options)
    weighted = weighted_pair(graph, options.solver) if graph.has_weights else None
    measures |= _weighted_measures(counts, weighted, subgraphs, options)
    if graph.has_weights:
        measures["l2"] = _norm([measures[name] for name in FULL_SPECTRUM])
        if options.dense:
            dense = dense or dense_reference(weights, options)
            measures["l2_dense"] = _distance(measures, dense)
    else:
        measures["l2"] = measures["l2_dense"] = Measure.missing(NO_WEIGHTS)
    pairs = [pair, weighted, *(p for k in subgraphs for p in (k.structure, k.weighted))]
    outcomes = tuple(p.outcome for p in pairs if p is not None)
    return LayerMetrics(counts, measures, len(subgraphs), pair, outcomes)


def dense_reference(weights: Array, options: MetricOptions, ones: Array | None = None) -> dict[str, Measure]:
    """The four full-spectrum measures of the unmasked layer: every weight kept.

    `weights`: (rows, columns). `ones`: where a weight stands at all, for a grouped layer whose matrix is zero elsewhere.
    The layer has one left-regular subgraph, itself, so the means over subgraphs equal the layer's own values.
    """
    xp = array_namespace(weights)
    graph = BipartiteGraph(xp.ones_like(weights, dtype=xp.bool) if ones is None else ones, weights)
    pair = structure_pair(graph, options.solver)
    measures = _layer_measures(graph.counts, pair)
    regular = min(graph.counts.d_L, graph.counts.d_R) >= LEAST_DEGREE
    factor = _factor(graph.n_L, graph.n_R) if options.expansion_weighted else 1.0
    gap = weighted_pair(graph, options.solver).gap
    none = Measure.missing(NO_SUBGRAPH)
    return {
        "dr": measures["dr"],
        "dr_imdb": _times(measures["dr"], factor) if regular else none,
        "lambda": gap,
        "lambda_imsg": _times(gap, factor) if regular else none,
    }


def ramanujan_gap(d_L: float, d_R: float, pair: SingularPair) -> Measure:
    """dr = sqrt(d_L - 1) + sqrt(d_R - 1) - sigma_2, for mean degrees of at least 1; >= 0 is called Ramanujan."""
    if pair.sigma_2 is None or pair.sigma_2_error is None:
        return Measure.missing(pair.outcome.value)
    return _minus(ramanujan_bound(d_L, d_R), pair)


def ramanujan_bound(d_L: float, d_R: float) -> float:
    """The largest sigma_2 of a Ramanujan graph: sqrt(d_L - 1) + sqrt(d_R - 1)."""
    return math.sqrt(d_L - 1) + math.sqrt(d_R - 1)


def eigenvalue_bound(pair: SingularPair) -> Measure:
    """ds_bound = 2 sqrt(sigma_1 - 1), for sigma_1 > 1."""
    if pair.sigma_1 is None or pair.sigma_1_error is None:
        return Measure.missing(pair.outcome.value)
    root = math.sqrt(max(pair.sigma_1 - 1, 0.0))
    low = math.sqrt(max(pair.sigma_1 - pair.sigma_1_error - 1, 0.0))
    return Measure.of(2 * root, 2 * (root - low))


def _minus(bound: float, pair: SingularPair, error: float = 0.0) -> Measure:
    """bound - sigma_2, with both errors and the rounding of the difference."""
    assert pair.sigma_2 is not None
    assert pair.sigma_2_error is not None
    return Measure(bound - pair.sigma_2, pair.sigma_2_error + error + 4 * EPS * (bound + pair.sigma_2))


def _layer_measures(counts: Counts, pair: SingularPair) -> dict[str, Measure]:
    """Section 2 of the whole graph."""
    names = ("dr", "dr_bound", "dr_norm", "ds", "ds_bound", "ds_norm", "expansion", "narc")
    if counts.edges == 0:
        return dict.fromkeys(names, Measure.missing(Outcome.COLLAPSED.value))
    if min(counts.d_L, counts.d_R) < LEAST_DEGREE:
        return dict.fromkeys(names, Measure.missing(LOW_DEGREE))
    measures = _gap_measures(counts.d_L, counts.d_R, pair)
    measures["expansion"] = Measure.of(counts.n_R / counts.n_L)
    measures["narc"] = _narc(counts, pair)
    return measures


def _gap_measures(d_L: float, d_R: float, pair: SingularPair) -> dict[str, Measure]:
    if pair.sigma_2 is None:
        missing = Measure.missing(pair.outcome.value)
        return dict.fromkeys(("dr", "dr_bound", "dr_norm", "ds", "ds_bound", "ds_norm"), missing)
    dr_bound, ds_bound = ramanujan_bound(d_L, d_R), eigenvalue_bound(pair)
    assert ds_bound.value is not None
    assert ds_bound.error is not None
    dr, ds = _minus(dr_bound, pair), _minus(ds_bound.value, pair, ds_bound.error)
    return {
        "dr": dr,
        "dr_bound": Measure.of(dr_bound, 4 * EPS * dr_bound),
        "dr_norm": _times(dr, 1 / dr_bound),
        "ds": ds,
        "ds_bound": ds_bound,
        "ds_norm": _quotient(ds, ds_bound),
    }


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
    counts: Counts, subgraphs: tuple[RegularSubgraph, ...], options: MetricOptions
) -> dict[str, Measure]:
    """Section 3: means over the kept K_d."""
    names = ("dr", "dr_norm", "ds", "ds_norm")
    rows = [_gap_measures(k.d_L, k.d_R, k.structure) for k in subgraphs]
    factors = _factors(subgraphs, options)
    measures = {
        name.replace("_norm", "") + "_imdb" + ("_norm" if name.endswith("_norm") else ""): _mean(
            [_times(row[name], factor) for row, factor in zip(rows, factors, strict=True)], counts
        )
        for name in names
    }
    ratios = [k.n_R / k.n_L for k in subgraphs]
    missing = _mean([], counts)
    measures["expansion_max"] = Measure.of(max(ratios)) if ratios else missing
    measures["expansion_mean"] = Measure.of(math.fsum(ratios) / len(ratios)) if ratios else missing
    return measures


def _weighted_measures(
    counts: Counts, pair: SingularPair | None, subgraphs: tuple[RegularSubgraph, ...], options: MetricOptions
) -> dict[str, Measure]:
    """Section 4's gaps: of the layer, whose weighted `pair` is given, and the mean over the kept K_d."""
    if pair is None:
        return dict.fromkeys(("lambda", "lambda_imsg"), Measure.missing(NO_WEIGHTS))
    factors = _factors(subgraphs, options)
    gaps = [
        _times(k.weighted.gap, factor) for k, factor in zip(subgraphs, factors, strict=True) if k.weighted is not None
    ]
    return {"lambda": pair.gap, "lambda_imsg": _mean(gaps, counts)}


def _factors(subgraphs: tuple[RegularSubgraph, ...], options: MetricOptions) -> list[float]:
    if not options.expansion_weighted:
        return [1.0] * len(subgraphs)
    return [_factor(k.n_L, k.n_R) for k in subgraphs]


def _factor(n_L: int, n_R: int) -> float:
    return max(n_L, n_R) / (n_L + n_R - 1)


def _mean(measures: list[Measure], counts: Counts) -> Measure:
    """Mean over subgraphs. One subgraph without an answer leaves no mean: the rest would be another quantity."""
    if counts.edges == 0:
        return Measure.missing(Outcome.COLLAPSED.value)
    if not measures:
        return Measure.missing(NO_SUBGRAPH)
    for measure in measures:
        if measure.reason is not None:
            return Measure.missing(measure.reason)
    return mean_of(measures)


def mean_of(measures: Iterable[Measure]) -> Measure:
    """Mean of measures that are all present, at least one of them; its error is the mean of theirs plus rounding."""
    values = [m.value for m in measures if m.value is not None]
    errors = [m.error or 0.0 for m in measures]
    mean = math.fsum(value / len(values) for value in values)  # divided first: the sum may be past float64
    return Measure.of(mean, math.fsum(error / len(errors) for error in errors))


def _norm(measures: list[Measure]) -> Measure:
    """Euclidean norm with undefined terms as 0 [F23]; it moves by no more than the norm of the errors."""
    unfinished = _unfinished(measures)
    if unfinished is not None:
        return unfinished
    value = math.hypot(*(m.value or 0.0 for m in measures))
    return Measure.of(value, math.hypot(*(m.error or 0.0 for m in measures)) + EPS * value)


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


def _times(measure: Measure, factor: float) -> Measure:
    return _map(measure, lambda value, error: (value * factor, error * factor + EPS * abs(value * factor)))


def _quotient(over: Measure, under: Measure) -> Measure:
    if over.value is None or under.value is None:
        return over if over.value is None else under
    least = under.value - (under.error or 0.0)
    if least <= 0:
        return Measure.missing("its bound is 0")
    ratio = over.value / under.value
    error = ((over.error or 0.0) + abs(ratio) * (under.error or 0.0)) / least
    return Measure.of(ratio, error)


def _map(measure: Measure, change: Callable[[float, float], tuple[float, float]]) -> Measure:
    if measure.value is None:
        return measure
    return Measure(*change(measure.value, measure.error or 0.0))
