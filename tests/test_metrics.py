"""What is measured from singular values: every quantity by hand on a small layer, by brute force on others."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from graphs import EPS, Mask, Matrix, projective_plane, shuffled, svd, uniform, union, with_isolated
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.errors import NotFiniteError, ParameterError, UsageError
from pai_cli.spectral import metrics
from pai_cli.spectral.catalogue import FULL_SPECTRUM, METRICS
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.formulas import Sigmas, Sizes, gaps, mean_of, norms, spreads
from pai_cli.spectral.graph import Counts
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import (
    MetricOptions,
    dense_reference,
    measure_layer,
)
from pai_cli.spectral.network import DenseCache, LayerInput, measure_together, summarise
from pai_cli.spectral.result import Measure, Outcome, Pairs, SingularPair
from pai_cli.spectral.singular import SolverOptions
from pai_cli.spectral.table import Column
from pai_cli.spelling import for_shell, option

pytestmark = pytest.mark.usefixtures("engine")

COLLAPSED = "collapsed"
LOW_DEGREE = "mean degree below 3"
ONE_VALUE = "fewer than two singular values"
NOT_CONVERGED = f"not converged: {option('solver', 'gram')} or direct goes another way"
NO_SUBGRAPH = "no left-regular subgraph with mean degrees of 3 or more"
NO_WEIGHTS = f"needs {option('weights')}"

LAYER = [name for name, metric in METRICS.items() if metric.section == "layer"]
REGULAR = [name for name, metric in METRICS.items() if metric.section == "regular"]
FANS = [name for name, metric in METRICS.items() if metric.section == "degrees"]
WEIGHTED = [name for name, metric in METRICS.items() if metric.section == "weights"]


def complete(rows: int, columns: int) -> Mask:
    return np.ones((rows, columns), dtype=bool)


def values_of(mask: Mask, weights: Matrix | None = None, **options: object) -> dict[str, float | None]:
    measures = measure_layer(mask, weights, MetricOptions(**options)).measures  # type: ignore[arg-type]
    return {name: measure.value for name, measure in measures.items()}


def reasons_of(mask: Mask, weights: Matrix | None = None) -> dict[str, str | None]:
    return {name: measure.reason for name, measure in measure_layer(mask, weights).measures.items()}


def value_of(measure: Measure) -> float:
    assert measure.value is not None, measure
    return measure.value


def of_one(counts: Counts, pair: SingularPair) -> dict[str, Measure]:
    """Section 2 of one graph."""
    columns = Counts(*(np.array([count]) for count in counts))
    measures = metrics._layer_measures(columns, Pairs.of([pair]), Convention.H23)
    return {name: column[0] for name, column in measures.items()}


# The definitions once more, in plain NumPy on dense matrices ---------------------------------------------------------


def live_of(mask: Mask) -> Mask:
    return mask[mask.any(axis=1)][:, mask.any(axis=0)]


def classes_of(mask: Mask, convention: str = "h23") -> list[list[int]]:
    """Columns of every kept K_d."""
    degrees = mask.sum(axis=0)
    kept = []
    for degree in sorted(set(degrees.tolist())):
        columns = np.flatnonzero(degrees == degree).tolist()
        touched = int(mask[:, columns].any(axis=1).sum())
        right = Fraction(degree * len(columns), max(touched, 1))
        h23, f23 = len(columns) >= 3 and right >= 3, len(columns) >= 2 and right > 1
        if degree >= 3 and (h23 if convention == "h23" else f23):
            kept.append(columns)
    return kept


def gaps_by_hand(mask: Mask) -> dict[str, float]:
    live = live_of(mask)
    n_R, n_L = live.shape
    edges = int(live.sum())
    sigma = svd(live)
    dr_bound = math.sqrt(edges / n_L - 1) + math.sqrt(edges / n_R - 1)
    ds_bound = 2 * math.sqrt(sigma[0] - 1)
    return {
        "dr": dr_bound - sigma[1],
        "dr_bound": dr_bound,
        "dr_norm": (dr_bound - sigma[1]) / dr_bound,
        "ds": ds_bound - sigma[1],
        "ds_bound": ds_bound,
        "ds_norm": (ds_bound - sigma[1]) / ds_bound,
        "expansion": n_R / n_L,
    }


def by_hand(mask: Mask, weights: Matrix, expansion_weighted: bool = False, convention: str = "h23") -> dict[str, float]:
    """Every metric of a layer that has gaps and at least one kept K_d, but l2_dense."""
    live, sigma = live_of(mask), svd(mask)
    n_R, n_L = live.shape
    edges = int(live.sum())
    result = {"sigma_1": sigma[0], "sigma_2": sigma[1], **gaps_by_hand(mask)}
    chance = edges / n_L / mask.shape[0] * n_L * n_R
    for name, axis in (("fan_in", 1), ("fan_out", 0)):
        fans = live.sum(axis=axis)
        result[f"{name}_std"], result[f"{name}_cv"] = float(np.std(fans)), float(np.std(fans) / np.mean(fans))
    result["narc"] = ((sigma[1] ** 2 / 4 + 1) * math.sqrt(n_L * n_R) - abs(2 * edges - chance)) / mask.size
    rows, lambdas, factors = [], [], []
    for columns in classes_of(mask, convention):
        rows.append(gaps_by_hand(mask[:, columns]))
        values = svd((np.abs(weights) * mask)[:, columns])
        lambdas.append(values[0] - values[1])
        block = live_of(mask[:, columns])
        factors.append(max(block.shape) / (sum(block.shape) - 1) if expansion_weighted or convention == "f23" else 1.0)
    for name in ("dr", "ds"):
        result[f"{name}_imdb"] = float(np.mean([row[name] * f for row, f in zip(rows, factors, strict=True)]))
        norms = [row[f"{name}_norm"] * f for row, f in zip(rows, factors, strict=True)]
        result[f"{name}_imdb_norm"] = float(np.mean(norms))
    result["expansion_max"] = max(row["expansion"] for row in rows)
    result["expansion_mean"] = float(np.mean([row["expansion"] for row in rows]))
    values = svd(np.abs(weights) * mask)
    result["lambda"] = values[0] - values[1]
    result["lambda_imsg"] = float(np.mean([x * f for x, f in zip(lambdas, factors, strict=True)]))
    result["l2"] = math.hypot(*(result[name] for name in FULL_SPECTRUM))
    return result


# A published layer -------------------------------------------------------------------------------------------------

CONV1 = Counts(n_L0=147, n_R0=64, n_L=147, n_R=64, edges=991, components=1)  # ResNet-34, ERK, 1 % (metrics.md 7)
CONV1_PAIR = SingularPair(11.20753, 5.98839, 5e-6, 5e-6, "published", Outcome.PROVED)


def test_published_layer() -> None:
    measures = of_one(CONV1, CONV1_PAIR)
    expected = {"dr": 0.21359, "dr_bound": 6.20198, "ds": 0.40146, "ds_bound": 6.38985}
    for name, value in expected.items():
        assert measures[name].value == pytest.approx(value, abs=1e-5), name
    assert measures["narc"].value == pytest.approx(-0.0025964, abs=5e-7 * 20)
    assert measures["expansion"].value == 64 / 147
    assert measures["dr_norm"].value == pytest.approx(0.21359 / 6.20198, rel=1e-4)
    assert measures["ds_norm"].value == pytest.approx(0.40146 / 6.38985, rel=1e-4)


def test_published_layer_carries_the_errors_of_its_singular_values() -> None:
    measures = of_one(CONV1, CONV1_PAIR)
    for name in ("dr", "dr_norm", "ds", "ds_norm", "narc"):
        low = of_one(CONV1, SingularPair(11.207525, 5.988395, 0, 0, "", Outcome.PROVED))[name]
        high = of_one(CONV1, SingularPair(11.207535, 5.988385, 0, 0, "", Outcome.PROVED))[name]
        error = measures[name].error
        assert error is not None
        reach = max(abs(value_of(low) - value_of(measures[name])), abs(value_of(high) - value_of(measures[name])))
        assert reach * (1 - 1e-6) <= error <= 1.01 * reach + 1e-12, name
    for name, exact in (("dr_bound", math.sqrt(991 / 147 - 1) + math.sqrt(991 / 64 - 1)), ("expansion", 64 / 147)):
        error = measures[name].error
        assert error is not None
        assert abs(value_of(measures[name]) - exact) <= error <= 20 * EPS * exact, name


# Small layers by hand ----------------------------------------------------------------------------------------------


def test_complete_layer() -> None:
    """K_{4,3} with weights u v^T: sigma = (sqrt 12, 0), one subgraph, itself."""
    u, v = np.array([1.0, 2.0, 2.0]), np.array([-1.0, 1.0, 1.0, 1.0])
    layer = measure_layer(complete(3, 4), np.outer(u, v))
    dr, ds_bound, gap = math.sqrt(2) + math.sqrt(3), 2 * math.sqrt(math.sqrt(12) - 1), 3 * 2
    expected = {
        "sigma_1": math.sqrt(12),
        "sigma_2": 0,
        "fan_in_std": 0,
        "fan_in_cv": 0,
        "fan_out_std": 0,
        "fan_out_cv": 0,
        "dr": dr,
        "dr_bound": dr,
        "dr_norm": 1,
        "ds": ds_bound,
        "ds_bound": ds_bound,
        "ds_norm": 1,
        "expansion": 0.75,
        "narc": (math.sqrt(12) - 12) / 12,
        "dr_imdb": dr,
        "dr_imdb_norm": 1,
        "ds_imdb": ds_bound,
        "ds_imdb_norm": 1,
        "expansion_max": 0.75,
        "expansion_mean": 0.75,
        "lambda": gap,
        "lambda_imsg": gap,
        "l2": math.sqrt(2 * dr**2 + 2 * gap**2),
        "l2_dense": 0,
    }
    assert set(expected) == set(METRICS)
    assert {name: m.value for name, m in layer.measures.items()} == pytest.approx(expected, rel=1e-14, abs=1e-14)
    assert layer.counts == Counts(4, 3, 4, 3, 12, 1)
    assert (layer.n_regular, layer.told) == (1, "proved")


def test_two_complete_parts_are_not_ramanujan() -> None:
    values = values_of(union(complete(3, 3), complete(3, 3)))
    assert values["sigma_2"] == pytest.approx(3)
    assert values["dr"] == pytest.approx(2 * math.sqrt(2) - 3)
    assert values["ds"] == pytest.approx(2 * math.sqrt(2) - 3)
    assert values["dr_norm"] == pytest.approx(1 - 3 / (2 * math.sqrt(2)))
    assert values["narc"] == pytest.approx(((9 / 4 + 1) * 6 - abs(36 - 18)) / 36)


def test_two_subgraphs() -> None:
    """Three columns of degree 3 on rows 0-2, five of degree 4 on rows 0-3: K_3 = K_{3,3} and K_4 = K_{5,4}."""
    mask = np.hstack([np.arange(4)[:, None] < np.full(3, 3), complete(4, 5)])
    mask = with_isolated(np.random.default_rng(0), mask, 2, 3)
    layer = measure_layer(mask)
    values = {name: measure.value for name, measure in layer.measures.items()}
    dr = 2 * math.sqrt(2), math.sqrt(3) + math.sqrt(4)
    ds = 2 * math.sqrt(2), 2 * math.sqrt(math.sqrt(20) - 1)
    assert layer.n_regular == 2
    assert values["dr_imdb"] == pytest.approx(sum(dr) / 2, rel=1e-14)
    assert values["ds_imdb"] == pytest.approx(sum(ds) / 2, rel=1e-14)
    assert (values["dr_imdb_norm"], values["ds_imdb_norm"]) == (pytest.approx(1), pytest.approx(1))
    assert values["expansion_max"] == 1.0
    assert values["expansion_mean"] == pytest.approx((1 + 4 / 5) / 2)
    assert layer.counts == Counts(11, 6, 8, 4, 29, 1)


@pytest.mark.parametrize("q", [2, 3, 5, 7, 11, 13, 31])
def test_projective_plane_is_ramanujan(q: int) -> None:
    values = values_of(projective_plane(q))
    assert values["dr"] == pytest.approx(math.sqrt(q), rel=1e-12)
    assert values["dr_norm"] == pytest.approx(0.5, rel=1e-12)
    assert values["ds"] == pytest.approx(math.sqrt(q), rel=1e-12)  # sigma_1 - 1 = q
    assert values["dr_imdb"] == pytest.approx(math.sqrt(q), rel=1e-12)  # regular: it is its own subgraph
    n = q * q + q + 1
    assert values["narc"] == pytest.approx(((q / 4 + 1) * n - n * (q + 1)) / n**2, rel=1e-11)


def random_layer(seed: int) -> tuple[Mask, Matrix]:
    """Mean degrees well over 3 and several K_d, with isolated vertices."""
    rng = np.random.default_rng(seed)
    mask = uniform(rng, int(rng.integers(9, 16)), int(rng.integers(40, 90)), rng.uniform(0.55, 0.9))
    mask = with_isolated(rng, mask, int(rng.integers(0, 4)), int(rng.integers(0, 4)))
    return mask, rng.normal(size=mask.shape)


@given(st.integers(0, 2**32), st.booleans())
def test_every_metric_by_brute_force(seed: int, expansion_weighted: bool) -> None:
    mask, weights = random_layer(seed)
    layer = measure_layer(mask, weights, MetricOptions(expansion_weighted=expansion_weighted))
    expected = by_hand(mask, weights, expansion_weighted)
    assert layer.n_regular == len(classes_of(mask)) >= 1
    assert set(layer.measures) == {*expected, "l2_dense"}
    for name, value in expected.items():
        measure = layer.measures[name]
        assert measure.error is not None
        assert abs(value_of(measure) - value) <= measure.error + 300 * EPS * max(expected["lambda"], 20), name
        assert measure.error <= 1e-8 * max(expected["lambda"], expected["sigma_1"]), name
    ones = by_hand(mask | True, weights, expansion_weighted)
    distance = math.hypot(*(expected[name] - ones[name] for name in FULL_SPECTRUM))
    assert layer.measures["l2_dense"].value == pytest.approx(distance, rel=1e-12)


def thin_layer(seed: int) -> tuple[Mask, Matrix]:
    """Outputs of mean degree 3 and more, inputs between 1 and 3, and classes of two and more columns."""
    rng = np.random.default_rng(seed)
    degrees = np.concatenate([np.full(rng.integers(20, 40), 1), np.full(rng.integers(2, 6), 3), np.full(2, 4)])
    scores = rng.random((8, len(degrees)))
    mask = np.argsort(np.argsort(scores, axis=0), axis=0) < degrees
    return mask, rng.normal(size=mask.shape)


@given(st.integers(0, 2**32), st.booleans())
def test_every_metric_of_f23_by_brute_force(seed: int, thin: bool) -> None:
    mask, weights = thin_layer(seed) if thin else random_layer(seed)
    options = MetricOptions(convention=Convention.F23)
    layer = measure_layer(mask, weights, options)
    expected = by_hand(mask, weights, convention="f23")
    assert layer.convention is Convention.F23
    assert layer.n_regular == len(classes_of(mask, "f23")) >= len(classes_of(mask))
    for name, value in expected.items():
        measure = layer.measures[name]
        assert measure.error is not None, name
        assert abs(value_of(measure) - value) <= measure.error + 300 * EPS * max(expected["lambda"], 20), name
    ones = by_hand(mask | True, weights, convention="f23")
    distance = math.hypot(*(expected[name] - ones[name] for name in FULL_SPECTRUM))
    assert layer.measures["l2_dense"].value == pytest.approx(distance, rel=1e-12)
    if thin:  # by the other convention neither is defined
        plain = measure_layer(mask, weights)
        assert plain.measures["dr"].reason == LOW_DEGREE
        assert plain.measures["lambda"].present


def test_where_f23_begins() -> None:
    """Outputs of mean degree 3, inputs of more than 1: one edge decides either."""
    stars = np.repeat(np.eye(3, dtype=bool), 3, axis=1)  # d_R = 3, d_L = 1
    reason = "mean degree of outputs below 3, or of inputs 1"
    options = MetricOptions(convention=Convention.F23)
    for name in (*LAYER, "lambda"):
        assert measure_layer(stars, stars * 1.0, options).measures[name].reason == reason, name
    stars[0, 8] = True
    found = measure_layer(stars, stars * 1.0, options).measures
    sigma = svd(stars)
    assert found["dr"].value == pytest.approx(math.sqrt(10 / 9 - 1) + math.sqrt(10 / 3 - 1) - sigma[1])
    assert found["lambda"].value == pytest.approx(sigma[0] - sigma[1])
    assert found["dr_imdb"].reason == "no two inputs of one degree, 3 or more, that share outputs"
    assert measure_layer(stars.T, stars.T * 1.0, options).measures["dr"].reason == reason  # d_R is then 10 / 9
    two = np.zeros((6, 2), dtype=bool)
    two[:3, 0] = two[3:, 1] = True  # two inputs of degree 3 that share nothing: d_R = 1
    assert measure_layer(two, options=options).n_regular == 0
    two[3, 0], two[0, 0] = True, False
    assert measure_layer(two, options=options).n_regular == 1
    assert measure_layer(two).n_regular == 0


def test_f23_has_the_factor_always() -> None:
    with pytest.raises(UsageError) as error:
        MetricOptions(convention=Convention.F23, expansion_weighted=True)
    assert for_shell(error.value.text) == (
        "--expansion-weighted: --convention f23 has that factor always; leave it out"
    )
    with pytest.raises(ParameterError, match="give one of h23, f23"):
        MetricOptions(convention="f24")  # type: ignore[arg-type]


@pytest.mark.usefixtures("iterate_from_33")
def test_a_large_layer_by_brute_force() -> None:
    """Sides past the direct one: the iteration's values and bounds go into the metrics."""
    rng = np.random.default_rng(0)
    mask = uniform(rng, 270, 900, 0.1)
    weights = rng.normal(size=mask.shape)
    layer = measure_layer(mask, weights, MetricOptions(dense=False))
    assert layer.solver == "power"
    assert layer.n_regular > 10
    for name, value in by_hand(mask, weights).items():
        measure = layer.measures[name]
        assert measure.error is not None
        assert abs(value_of(measure) - value) <= measure.error + 1e-11, name
        assert measure.error <= 1e-6, name


@given(st.integers(0, 2**32))
def test_what_symmetries_leave_alone(seed: int) -> None:
    mask, _ = random_layer(seed)
    rng = np.random.default_rng(seed)
    values = values_of(mask)
    moved = values_of(shuffled(rng, mask))
    for name, value in moved.items():
        assert value == (None if name in WEIGHTED else pytest.approx(values[name], rel=1e-9, abs=1e-9)), name
    turned = values_of(mask.T)
    for name in ("sigma_1", "sigma_2", "dr", "dr_bound", "dr_norm", "ds", "ds_norm"):
        assert turned[name] == pytest.approx(values[name], rel=1e-9, abs=1e-9), name
    assert [turned[name] for name in FANS] == [values[name] for name in FANS[2:] + FANS[:2]]
    assert turned["expansion"] == pytest.approx(1 / (values["expansion"] or 0))
    more = measure_layer(with_isolated(rng, mask, 2, 5))
    before = measure_layer(mask)
    for name in (*FANS, "sigma_1", "sigma_2", *LAYER, *REGULAR):
        if name != "narc":
            assert more.measures[name].value == pytest.approx(before.measures[name].value, rel=1e-9, abs=1e-9), name
    assert more.n_regular == before.n_regular
    assert (more.counts.n_L0, more.counts.n_R0) == (before.counts.n_L0 + 5, before.counts.n_R0 + 2)
    assert (more.counts.n_L, more.counts.n_R, more.counts.edges, more.counts.components) == (
        before.counts.n_L,
        before.counts.n_R,
        before.counts.edges,
        before.counts.components,
    )


def test_fans_by_hand() -> None:
    """Outputs of 4, 2, 0 and 2 kept weights; inputs of 3, 3, 1, 1: standard deviations sqrt(8/9) and 1."""
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    measures = measure_layer(mask).measures
    exact = {"fan_in_std": Fraction(8, 9), "fan_in_cv": Fraction(1, 8), "fan_out_std": 1, "fan_out_cv": Fraction(1, 4)}
    for name, squared in exact.items():
        error = measures[name].error
        assert error is not None
        assert abs(value_of(measures[name]) - math.sqrt(squared)) <= error <= 1e-14, name
    star = measure_layer(complete(1, 5)).measures  # too few values for gaps, and fans all the same
    assert [star[name].value for name in FANS] == [0, 0, 0, 0]


def test_a_spread_loses_no_digits_where_fans_are_large_and_nearly_equal() -> None:
    fans = np.full(1001, 2**22, dtype=np.int64)
    fans[0] += 1
    std, ratio = (column[0] for column in spreads([fans], np.array([fans.sum()]), [None]))
    exact = math.sqrt(Fraction(1000, 1001**2))
    for one, wanted in ((std, exact), (ratio, exact / (2**22 + 1 / 1001))):
        assert value_of(one) == pytest.approx(wanted, rel=1e-15)
        assert one.error == pytest.approx(8 * EPS * wanted, rel=1e-9)


def test_isolated_vertices_change_narc() -> None:
    before = values_of(complete(4, 4))["narc"]
    after = values_of(with_isolated(np.random.default_rng(0), complete(4, 4), 2, 3))["narc"]
    assert before == pytest.approx((4 - 16) / 16)
    assert after == pytest.approx((4 - abs(32 - 4 / 6 * 16)) / 42)


# Missing values and their reasons ----------------------------------------------------------------------------------


def test_every_metric_is_there_or_has_its_reason() -> None:
    for mask in (complete(5, 6), complete(2, 2), np.zeros((3, 4), dtype=bool), complete(1, 5)):
        assert set(measure_layer(mask).measures) == set(METRICS)
        assert set(measure_layer(mask, np.ones(mask.shape)).measures) == set(METRICS)
    assert set(measure_layer(complete(5, 6), np.ones((5, 6)), MetricOptions(dense=False)).measures) == (
        set(METRICS) - {"l2_dense"}
    )


def test_without_weights() -> None:
    reasons = reasons_of(complete(5, 6))
    assert [reasons[name] for name in WEIGHTED] == [NO_WEIGHTS] * 4
    assert [name for name, reason in reasons.items() if reason is None] == [n for n in METRICS if n not in WEIGHTED]


def test_collapsed_layer() -> None:
    layer = measure_layer(np.zeros((4, 5), dtype=bool), np.ones((4, 5)))
    for name in ("sigma_1", "sigma_2", *FANS, *LAYER, *REGULAR, "lambda", "lambda_imsg"):
        assert layer.measures[name] == Measure(None, None, COLLAPSED), name
    dense = math.sqrt(3) + math.sqrt(4)
    gap = math.sqrt(20)
    assert layer.measures["l2"].value == 0
    assert layer.measures["l2_dense"].value == pytest.approx(math.sqrt(2 * dense**2 + 2 * gap**2))
    assert (layer.told, layer.n_regular) == (COLLAPSED, 0)
    assert layer.counts == Counts(5, 4, 0, 0, 0, 0)
    assert (layer.counts.d_L, layer.counts.d_R) == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (2, 2)])
def test_mean_degree_below_3(shape: tuple[int, int]) -> None:
    layer = measure_layer(complete(*shape), np.ones(shape))
    reasons = {name: measure.reason for name, measure in layer.measures.items()}
    assert {reasons[name] for name in LAYER} == {LOW_DEGREE}
    assert {reasons[name] for name in (*REGULAR, "lambda_imsg")} == {NO_SUBGRAPH}
    assert layer.measures["sigma_2"].value == 0
    gap = math.sqrt(shape[0] * shape[1])
    assert layer.measures["lambda"].value == pytest.approx(gap)
    assert layer.measures["l2"].value == pytest.approx(gap)  # the missing three count as 0
    assert layer.measures["l2_dense"].value == 0


def test_mean_degree_of_exactly_3_is_enough() -> None:
    ring = np.eye(7, dtype=bool) | np.roll(np.eye(7, dtype=bool), 1, axis=1) | np.roll(np.eye(7, dtype=bool), 3, axis=1)
    assert values_of(ring)["dr"] is not None  # the Fano plane
    ring[0, 0] = False
    assert reasons_of(ring)["dr"] == LOW_DEGREE


def test_left_and_right_degree_both_count() -> None:
    tall = uniform(np.random.default_rng(0), 40, 10, 0.15)  # d_L about 6, d_R about 1.9
    assert reasons_of(tall)["dr"] == reasons_of(tall.T)["dr"] == LOW_DEGREE


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1)])
def test_one_singular_value(shape: tuple[int, int]) -> None:
    layer = measure_layer(complete(*shape), np.full(shape, 2.0))
    assert layer.measures["sigma_1"].value == pytest.approx(math.sqrt(max(shape)))
    assert layer.measures["sigma_2"].reason == ONE_VALUE
    assert layer.measures["lambda"].reason == ONE_VALUE
    assert layer.measures["dr"].reason == LOW_DEGREE
    assert layer.told == ONE_VALUE


def test_no_subgraph_but_a_layer() -> None:
    """Columns of degrees 3, 3, 4, 4, 5, 5: no degree is shared by three."""
    mask = np.arange(6)[:, None] < np.array([3, 3, 4, 4, 5, 5])
    layer = measure_layer(mask, np.ones(mask.shape))
    assert layer.measures["dr"].present
    assert {layer.measures[name].reason for name in (*REGULAR, "lambda_imsg")} == {NO_SUBGRAPH}
    assert layer.n_regular == 0
    dr, gap = layer.measures["dr"], layer.measures["lambda"]
    assert layer.measures["l2"].value == pytest.approx(math.hypot(value_of(dr), value_of(gap)))


@pytest.mark.usefixtures("iterate_from_33")
def test_not_converged_leaves_no_number() -> None:
    mask = uniform(np.random.default_rng(0), 300, 2700, 0.1)
    layer = measure_layer(mask, options=MetricOptions(SolverOptions(most_products=10)))
    for name in ("sigma_1", "sigma_2", "dr", "dr_norm", "ds", "ds_bound", "narc"):
        assert layer.measures[name].reason == NOT_CONVERGED, name
    assert layer.measures["expansion"].value == pytest.approx(300 / 2700)  # no singular value in it
    assert layer.told == NOT_CONVERGED


@pytest.mark.usefixtures("iterate_from_33")
def test_one_subgraph_not_converged_leaves_no_mean() -> None:
    """K_8 is large and needs the iteration; K_20 is answered, but alone it is not the mean over both."""
    scores = np.random.default_rng(0).random((300, 410))
    mask = np.argsort(np.argsort(scores, axis=0), axis=0) < np.repeat([8, 20], [350, 60])
    options = MetricOptions(SolverOptions(most_products=10))
    layer = measure_layer(mask, np.ones(mask.shape), options)
    assert layer.n_regular == 2
    for name in ("dr_imdb", "dr_imdb_norm", "ds_imdb", "ds_imdb_norm", "lambda_imsg"):
        assert layer.measures[name].reason == NOT_CONVERGED, name
    assert layer.measures["expansion_mean"].present


@pytest.mark.usefixtures("iterate_from_33")
def test_l2_does_not_take_an_unfinished_run_for_0() -> None:
    """A term that is not defined counts as 0 [F23]; one that was not computed leaves the norm unknown."""
    rng = np.random.default_rng(0)
    mask = uniform(rng, 300, 2700, 0.1)
    layer = measure_layer(mask, rng.normal(size=mask.shape), MetricOptions(SolverOptions(most_products=10)))
    assert layer.measures["lambda"].reason == NOT_CONVERGED
    assert layer.measures["l2"].reason == NOT_CONVERGED
    assert layer.measures["l2_dense"].reason == NOT_CONVERGED


def test_a_bound_wider_than_asked_is_noted() -> None:
    mask = uniform(np.random.default_rng(0), 9, 12, 0.7)
    layer = measure_layer(mask, options=MetricOptions(SolverOptions(tolerance=1e-18)))
    assert layer.measures["dr"].present
    assert layer.told == "error bound wider than asked for: the value lies within the bound given"


def test_a_bound_wider_than_asked_is_noted_for_weights_too() -> None:
    """The mask is complete, hence exact; only the weights' own values are wider than what was asked."""
    weights = np.random.default_rng(0).normal(size=(9, 12))
    layer = measure_layer(complete(9, 12), weights, MetricOptions(SolverOptions(tolerance=1e-15)))
    assert layer.outcomes[0] is Outcome.PROVED
    assert (layer.measures["lambda"].error or 0) > 1e-15 * (layer.measures["lambda"].value or 0)
    assert layer.told == "error bound wider than asked for: the value lies within the bound given"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_not_finite(bad: float) -> None:
    weights = np.ones((4, 5))
    weights[2, 3] = bad
    with pytest.raises(NotFiniteError):
        measure_layer(complete(4, 5), weights)


# Weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (2, 9), (20, 90), (260, 300)])
@pytest.mark.parametrize("expansion_weighted", [False, True])
def test_the_full_mask_is_at_no_distance_from_dense(shape: tuple[int, int], expansion_weighted: bool) -> None:
    weights = np.random.default_rng(0).normal(size=shape)
    options = MetricOptions(expansion_weighted=expansion_weighted)
    assert measure_layer(complete(*shape), weights, options).measures["l2_dense"].value == 0


def test_dense_reference_is_the_unmasked_layer() -> None:
    weights = np.random.default_rng(0).normal(size=(12, 30))
    weights[3, 4] = 0.0  # a weight of 0 is a kept one
    for expansion_weighted in (False, True):
        options = MetricOptions(expansion_weighted=expansion_weighted)
        dense = {name: measure.value for name, measure in dense_reference(weights, options).items()}
        expected = by_hand(complete(12, 30), weights, expansion_weighted)
        assert dense == pytest.approx({name: expected[name] for name in FULL_SPECTRUM}, rel=1e-12)


def test_dense_reference_given_is_used() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 5))
    known = dict.fromkeys(FULL_SPECTRUM, Measure.of(0.0))
    layer = measure_layer(complete(4, 5), weights, dense=known)
    assert layer.measures["l2_dense"].value == layer.measures["l2"].value


def test_missing_terms_count_as_0_in_the_distance() -> None:
    layer = measure_layer(complete(4, 4), np.ones((4, 4)), dense=dict.fromkeys(FULL_SPECTRUM, Measure.missing("none")))
    assert layer.measures["l2_dense"].value == layer.measures["l2"].value
    sparse = measure_layer(np.eye(4, dtype=bool), np.ones((4, 4)))
    dr = 2 * math.sqrt(3)
    assert sparse.measures["l2"].value == 0
    assert sparse.measures["l2_dense"].value == pytest.approx(math.sqrt(2 * dr**2 + 2 * 4**2))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_expansion_weighted_factor(shape: tuple[int, int]) -> None:
    """On K_{9,4} the one subgraph's factor is 9 / 12, either way up; the layer's own values have none."""
    weights = np.random.default_rng(0).normal(size=shape)
    plain, factored = (values_of(complete(*shape), weights, expansion_weighted=on) for on in (False, True))
    for name in ("dr_imdb", "dr_imdb_norm", "ds_imdb", "ds_imdb_norm", "lambda_imsg"):
        assert factored[name] == pytest.approx((plain[name] or 0) * 9 / 12), name
    for name in ("dr", "ds", "lambda", "expansion_max", "expansion_mean"):
        assert factored[name] == plain[name], name
    assert MetricOptions().expansion_weighted is False


def test_sign_of_weights_does_not_matter() -> None:
    mask, weights = random_layer(1)
    assert values_of(mask, weights) == values_of(mask, np.abs(weights)) == values_of(mask, -weights)


def test_masked_weights_do_not_matter_but_for_dense() -> None:
    mask, weights = random_layer(2)
    one, other = values_of(mask, weights), values_of(mask, weights * mask)
    assert one.pop("l2_dense") != other.pop("l2_dense")
    assert one == other


def test_scaling_weights_scales_only_lambda() -> None:
    mask, weights = random_layer(3)
    one, scaled = values_of(mask, weights), values_of(mask, weights * 1e150)
    for name in METRICS:
        if name.startswith("lambda"):
            assert scaled[name] == pytest.approx((one[name] or 0) * 1e150, rel=1e-9)
        elif not name.startswith("l2"):
            assert scaled[name] == one[name]


def test_torch_layer() -> None:
    mask, weights = random_layer(4)
    ours = measure_layer(mask, weights)
    theirs = measure_layer(torch.from_numpy(mask), torch.from_numpy(weights))
    assert ours.counts == theirs.counts
    assert ours.n_regular == theirs.n_regular
    for name in METRICS:
        assert theirs.measures[name].value == pytest.approx(ours.measures[name].value, rel=1e-12), name
        assert theirs.measures[name].reason is None


@pytest.mark.parametrize("mask", [np.zeros((3, 4), dtype=bool), complete(1, 5), complete(2, 7), np.eye(5, dtype=bool)])
def test_torch_gives_the_same_reasons(mask: Mask) -> None:
    ours, theirs = measure_layer(mask, mask * 1.0), measure_layer(torch.from_numpy(mask), torch.from_numpy(mask * 1.0))
    assert [m.reason for m in ours.measures.values()] == [m.reason for m in theirs.measures.values()]
    assert list(ours.measures) == list(theirs.measures)
    assert ours.told == theirs.told


# Errors ------------------------------------------------------------------------------------------------------------

WIDE = {
    "both": SingularPair(10.0, 4.0, 1e-3, 1e-2, "", Outcome.PROVED),
    "first": SingularPair(10.0, 4.0, 0.5, 1e-9, "", Outcome.PROVED),
    "second": SingularPair(10.0, 4.0, 1e-9, 0.5, "", Outcome.PROVED),
    "first, gap below 0": SingularPair(10.0, 8.0, 0.05, 1e-9, "", Outcome.PROVED),
}


@pytest.mark.parametrize("pair", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("name", ["dr", "dr_norm", "ds", "ds_bound", "ds_norm", "narc"])
def test_an_error_covers_every_value_in_reach(name: str, pair: SingularPair) -> None:
    """Wherever in their intervals the true sigmas lie, the true measure lies within the error of what is given."""
    given_ = of_one(Counts(50, 30, 40, 20, 300, 1), pair)[name]
    assert pair.sigma_1 is not None
    assert pair.sigma_2 is not None
    worst = 0.0
    for a in np.linspace(-1, 1, 9):
        for b in np.linspace(-1, 1, 9):
            true = SingularPair(
                pair.sigma_1 + a * (pair.sigma_1_error or 0),
                pair.sigma_2 + b * (pair.sigma_2_error or 0),
                0.0,
                0.0,
                "",
                Outcome.PROVED,
            )
            worst = max(worst, abs(value_of(of_one(Counts(50, 30, 40, 20, 300, 1), true)[name]) - value_of(given_)))
    assert given_.error is not None
    assert worst <= given_.error * (1 + 1e-12)
    assert given_.error <= 1.3 * worst + 1e-9


def exact_gaps(sizes: Sizes, sigmas: Sigmas) -> dict[str, Decimal]:
    """The definitions in 60 digits."""
    edges, n_L, n_R = map(Decimal, sizes)
    first, second = Decimal(sigmas.first), Decimal(sigmas.second)
    dr_bound, ds_bound = (edges / n_L - 1).sqrt() + (edges / n_R - 1).sqrt(), 2 * (first - 1).sqrt()
    dr, ds = dr_bound - second, ds_bound - second
    return {
        "dr": dr,
        "dr_bound": dr_bound,
        "dr_norm": dr / dr_bound,
        "ds": ds,
        "ds_bound": ds_bound,
        "ds_norm": ds / ds_bound,
    }


@given(st.integers(0, 2**32))
def test_gaps_are_within_their_rounding_of_60_digits(seed: int) -> None:
    """Mean degrees just over 1 too, where d - 1 has few digits left; singular values near either bound."""
    rng = np.random.default_rng(seed)
    n_R = rng.integers(3, 5000, size=12)
    n_L = n_R * rng.integers(3, 9, size=12)
    edges = np.where(rng.random(12) < 0.5, n_L + rng.integers(1, 4, size=12), n_L * rng.integers(2, 60, size=12))
    first = np.sqrt(edges / n_L * (edges / n_R)) * rng.uniform(1.0, 3.0, size=12)
    middle = np.where(rng.random(12) < 0.5, 2 * np.sqrt(first - 1), np.sqrt(edges / n_L - 1) + np.sqrt(edges / n_R - 1))
    second = middle * (1 + rng.normal(size=12) * 10.0 ** rng.integers(-17, 0, size=12))
    none = np.zeros(12)
    many = gaps(Sizes(edges, n_L, n_R), Sigmas(first, second, none, none))
    for k in range(12):
        sizes = Sizes(*(int(numbers[k]) for numbers in (edges, n_L, n_R)))
        sigmas = Sigmas(float(first[k]), float(second[k]), 0.0, 0.0)
        with localcontext(prec=60):
            for name, exact in exact_gaps(sizes, sigmas).items():
                value, error = float(many[name].value[k]), float(many[name].error[k])
                assert abs(Decimal(value) - exact) <= Decimal(error), name
                assert error <= 40 * EPS * (1 + abs(value) + sigmas.second), name


def test_no_singular_value_no_gap() -> None:
    none = SingularPair(None, None, None, None, "power", Outcome.NOT_CONVERGED)
    measures = of_one(CONV1, none)
    assert {name for name, one in measures.items() if one == Measure.missing(NOT_CONVERGED)} == set(LAYER) - {
        "expansion"
    }


def test_norm_and_distance_inherit_errors() -> None:
    first = {name: Measure(value, 0.1) for name, value in zip(FULL_SPECTRUM, (1.0, 2.0, 3.0, 4.0), strict=True)}
    second = {name: Measure(1.0, 0.2) for name in FULL_SPECTRUM}
    one = {name: Column.listed([measure]) for name, measure in first.items()}
    norm = norms(list(one.values()), [None])[0]
    assert norm.value == pytest.approx(math.sqrt(30))
    assert norm.error == pytest.approx(0.2)
    distance = metrics._distance(list(one.values()), [second])[0]
    assert distance.value == pytest.approx(math.sqrt(14))
    assert distance.error == pytest.approx(0.6)


def test_mean_of() -> None:
    mean = mean_of([Measure(1.0, 0.1), Measure(2.0, 0.3)])
    assert (mean.value, mean.error) == (1.5, pytest.approx(0.2))


def test_a_mean_counts_what_its_divisions_lose_where_values_cancel() -> None:
    values = [1e10 / 3, -1e10 / 3 + 1e-6, 7e9 / 9, -7e9 / 9, 1e-3]
    with localcontext(prec=60):
        found = mean_of([Measure(value, 0.0) for value in values])
        exact = sum(map(Decimal, values)) / len(values)
        assert found.value is not None
        assert found.error is not None
        assert abs(Decimal(found.value) - exact) <= Decimal(found.error)


def test_a_measure_has_a_value_or_a_reason() -> None:
    with pytest.raises(ValueError, match="not both and not neither"):
        Measure(None)
    with pytest.raises(ValueError, match="not both and not neither"):
        Measure(1.0, 0.0, "why")
    assert Measure.of(1.0).present
    assert not Measure.missing("why").present


# A network ---------------------------------------------------------------------------------------------------------


def network() -> list[LayerInput]:
    rng = np.random.default_rng(0)
    return [
        LayerInput("conv", uniform(rng, 8, 4 * 9, 0.6).reshape(8, 4, 3, 3), rng.normal(size=(8, 4, 3, 3))),
        LayerInput("depthwise", np.ones((6, 1, 3, 3), dtype=bool), rng.normal(size=(6, 1, 3, 3)), Layout(groups=6)),
        LayerInput("gone", np.zeros((5, 7), dtype=bool), rng.normal(size=(5, 7))),
        LayerInput("head", uniform(rng, 10, 12, 0.8), rng.normal(size=(10, 12))),
    ]


def test_network_means_and_counts() -> None:
    layers = measure_together(network(), MetricOptions())
    report = summarise(layers)
    assert [layer.name for layer in report.layers] == ["conv", "depthwise", "gone", "head"]
    for name in METRICS:
        present = [m for m in (layer.measures[name] for layer in layers) if m.present]
        assert report.counted[name] == len(present), name
        if present:
            assert report.measures[name].value == pytest.approx(np.mean([value_of(m) for m in present])), name
            assert report.measures[name].error is not None
    assert report.counted["dr"] == 2  # the depthwise layer's left degree is 1, and one layer is gone
    assert report.counted["sigma_2"] == report.counted["lambda"] == 3
    assert report.counted["l2"] == 4
    assert report.collapsed == ("gone",)
    assert report.total == 8 * 36 + 54 + 35 + 120
    assert report.kept == sum(int(layer.mask.sum()) for layer in network())
    assert report.density == report.kept / report.total
    assert report.layers[1].shape == (6, 1, 3, 3)


def test_layers_are_unrolled_by_their_layout() -> None:
    depthwise = next(r for r in measure_together(network(), MetricOptions()) if r.name == "depthwise")
    assert (depthwise.counts.n_L0, depthwise.counts.n_R0) == (54, 6)
    assert depthwise.counts.components == 6
    transposed = LayerInput("up", np.ones((3, 5, 2, 2), dtype=bool), None, Layout(transposed=True))
    (report,) = measure_together([transposed], MetricOptions())
    assert (report.counts.n_L0, report.counts.n_R0) == (12, 5)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 4, 3, 3), Layout()),
        ((8, 4, 3, 3), Layout(groups=2)),
        ((6, 1, 3, 3), Layout(groups=6)),
        ((8, 4, 2, 2), Layout(transposed=True)),
        ((8, 4, 2, 2), Layout(groups=2, transposed=True)),
    ],
)
def test_a_full_layer_of_any_layout_is_at_no_distance_from_dense(shape: tuple[int, ...], layout: Layout) -> None:
    """The unmasked layer of a grouped convolution is the graph of its groups, not the complete graph around them."""
    full = LayerInput("full", np.ones(shape, dtype=bool), np.random.default_rng(0).normal(size=shape), layout)
    (report,) = measure_together([full], MetricOptions())
    assert report.measures["l2_dense"].value == 0


def test_dense_measures_of_a_grouped_layer_by_hand() -> None:
    """Two blocks of K_{36,4}, weights all 1: sigma_1 = sigma_2 = 12, d_L = 4, d_R = 36."""
    weights = np.ones((8, 4, 3, 3))
    (dense,) = DenseCache().of([LayerInput("g", weights > 0, weights, Layout(groups=2))], MetricOptions())
    assert dense is not None
    dr = math.sqrt(3) + math.sqrt(35) - 12
    assert {name: dense[name].value for name in FULL_SPECTRUM} == pytest.approx(
        {"dr": dr, "dr_imdb": dr, "lambda": 0, "lambda_imsg": 0}, abs=1e-9
    )


def test_what_no_layer_has_is_missing_with_all_reasons() -> None:
    gone = LayerInput("gone", np.zeros((5, 7), dtype=bool))
    thin = LayerInput("thin", np.eye(5, dtype=bool))
    report = summarise(measure_together([gone, thin], MetricOptions()))
    assert report.measures["dr"] == Measure.missing(f"{COLLAPSED}; {LOW_DEGREE}")
    assert report.measures["dr_imdb"] == Measure.missing(f"{COLLAPSED}; {NO_SUBGRAPH}")
    assert report.measures["lambda"] == report.measures["l2_dense"] == Measure.missing(NO_WEIGHTS)
    assert report.counted["dr"] == 0
    assert report.measures["sigma_1"].value == pytest.approx(1)


def test_l2_dense_not_asked_for() -> None:
    report = summarise(measure_together(network(), MetricOptions(dense=False)))
    assert report.measures["l2_dense"] == Measure.missing("not measured")
    assert report.counted["l2_dense"] == 0


def test_dense_measures_are_kept_between_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DenseCache()
    first = measure_together(network(), MetricOptions(), cache)
    assert {name for name, _ in cache.known} == {"conv", "depthwise", "gone", "head"}
    assert cache.known["head", Layout()] == dense_reference(network()[3].weights, MetricOptions())
    assert cache.of([LayerInput("x", np.ones((2, 2)))], MetricOptions()) == [None]
    assert cache.of(network()[:1], MetricOptions(dense=False)) == [None]
    monkeypatch.setattr("pai_cli.spectral.network.unmasked", lambda *_: pytest.fail("computed again"))
    second = measure_together(network(), MetricOptions(), cache)
    assert first == second


def test_dense_measures_of_another_layout_are_others() -> None:
    """Two masks of one checkpoint, one file telling that the layer is grouped and one not, in either order."""
    weights = np.random.default_rng(0).normal(size=(8, 4, 3, 3))
    grouped = LayerInput("conv", np.ones(weights.shape, dtype=bool), weights, Layout(groups=2))
    plain = LayerInput("conv", grouped.mask, weights)
    for order in ([grouped, plain], [plain, grouped]):
        reports = measure_together(order, MetricOptions(), DenseCache())
        assert [value_of(report.measures["l2_dense"]) for report in reports] == [0.0, 0.0]


# Catalogue ---------------------------------------------------------------------------------------------------------


def test_catalogue() -> None:
    assert set(FULL_SPECTRUM) < set(METRICS)
    assert [name for name, metric in METRICS.items() if metric.needs_weights] == [
        "lambda",
        "lambda_imsg",
        "l2",
        "l2_dense",
    ]
    assert [name for name, metric in METRICS.items() if not metric.larger_is_better] == [
        "sigma_2",
        *FANS,
        "narc",
        "l2_dense",
    ]
    assert all(name == metric.name and metric.meaning for name, metric in METRICS.items())


def test_a_mean_past_float64_is_taken_and_a_value_past_it_is_missing() -> None:
    assert value_of(mean_of([Measure(1.5e308, 0.0)] * 3)) == pytest.approx(1.5e308)
    assert Measure.of(math.inf).reason == "past the range of float64"
    assert norms([Column.listed([Measure(1.5e308, 0.0)])] * 4, [None])[0].reason == "past the range of float64"
