"""Correlations by hand, by brute force and by scipy; their p-values by enumeration; bootstrap samples by repeating masks."""

from __future__ import annotations

import math
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pai_cli.ranking import bootstrap
from pai_cli.ranking.bootstrap import Resampling, draw, resampled
from pai_cli.ranking.statistics import (
    Sample,
    centred,
    dense_ranks,
    dependence,
    exchangeable,
    holm,
    kendall,
    kendall_p,
    kendall_permutation_p,
    pearson,
    permutation_p,
    product_p,
    shuffles,
    smallest_p,
    spearman,
    t_p,
)


def sample(x: list[float], y: list[float], sizes: list[int] | None = None) -> Sample:
    """Masks in strata of these sizes, one after the other."""
    ends = np.cumsum(sizes or [len(x)])
    strata = tuple(np.arange(end - size, end) for size, end in zip(sizes or [len(x)], ends.tolist(), strict=True))
    a, b = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    return Sample(a, b, dense_ranks(a), dense_ranks(b), strata)


def alone(one: Sample) -> list[np.ndarray]:
    """What can be exchanged where no mask is in two strata."""
    return exchangeable(one.strata, np.arange(one.size))


def brute_tau(one: Sample) -> float | None:
    pairs = [pair for at in one.strata for pair in combinations(at.tolist(), 2)]
    signs = [(np.sign(one.x[i] - one.x[j]), np.sign(one.y[i] - one.y[j])) for i, j in pairs]
    u_x, u_y = sum(abs(a) for a, _ in signs), sum(abs(b) for _, b in signs)
    return None if u_x * u_y == 0 else sum(a * b for a, b in signs) / math.sqrt(u_x * u_y)


@pytest.mark.parametrize(
    ("x", "y", "sizes", "wanted"),
    [
        ([1, 2, 3], [1, 2, 3], None, 1.0),
        ([1, 2, 3], [3, 2, 1], None, -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], None, 4 / 6),  # 5 pairs agree, 1 does not
        ([1, 2, 2, 3], [1, 3, 2, 3], None, 4 / 5),  # 4 agree; x ties one pair, y another: 5 told apart by each
        ([1, 1, 2, 2], [1, 2, 1, 2], None, 0.0),
        ([1, 1, 2], [1, 2, 3], None, 2 / math.sqrt(6)),
        ([1, 2, 3, 1, 2], [1, 3, 2, 2, 1], [3, 2], 0.0),  # 2 - 1 within the first, -1 within the second
        ([1, 2, 3, 1, 2], [1, 2, 3, 2, 1], [3, 2], 2 / 4),
        ([1, 2, 9, 8], [1, 2, 3, 4], [2, 2], 0.0),  # across strata nothing counts
        ([5, 5, 5], [1, 2, 3], None, None),
        ([1, 2, 3], [5, 5, 5], None, None),
        ([1, 2], [1, 2], [1, 1], None),
        ([], [], None, None),
    ],
)
def test_tau_by_hand(x: list[float], y: list[float], sizes: list[int] | None, wanted: float | None) -> None:
    assert kendall(sample(x, y, sizes)) == (None if wanted is None else pytest.approx(wanted, abs=1e-15))


def test_a_perfect_order_is_exactly_one() -> None:
    for n in range(2, 60):
        assert kendall(sample(list(range(n)), list(range(n)))) == 1.0


def test_rho_and_r_by_hand() -> None:
    one = sample([1, 2, 3], [1, 3, 2])
    assert spearman(one) == pytest.approx(1 - 6 * 2 / (3 * 8))  # 1 - 6 sum(d^2) / (n (n^2 - 1))
    assert pearson(sample([1, 2, 3], [2, 4, 7])) == pytest.approx(5 / math.sqrt(2 * 38 / 3))
    # Two strata: ranks 1 2 and 2 1, deviations of a half: they cancel.
    assert spearman(sample([1, 2, 5, 6], [1, 2, 9, 8], [2, 2])) == pytest.approx(0.0)
    # Deviations -1 1 and -2 2 against -1 1 and 1 -1: (2 - 4) / sqrt(10 * 4).
    assert pearson(sample([0, 2, 10, 14], [5, 7, 3, 1], [2, 2])) == pytest.approx(-2 / math.sqrt(40))


@pytest.mark.parametrize("seed", range(4))
def test_one_stratum_is_as_scipy_has_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, 40).tolist(), rng.integers(0, 7, 40).tolist()
    one = sample(x, y)
    tau, rho, r = stats.kendalltau(x, y), stats.spearmanr(x, y), stats.pearsonr(x, y)
    assert kendall(one) == pytest.approx(tau.statistic, abs=1e-12)
    assert spearman(one) == pytest.approx(rho.statistic, abs=1e-12)
    assert pearson(one) == pytest.approx(r.statistic, abs=1e-12)
    assert kendall_p(one) == (pytest.approx(tau.pvalue), "normal")
    assert t_p(rho.statistic, 40, 1) == pytest.approx(rho.pvalue)
    assert t_p(r.statistic, 40, 1) == pytest.approx(r.pvalue)


ROWS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 2)), min_size=2, max_size=14)


def of_rows(rows: list[tuple[int, int, int]]) -> Sample:
    rows = sorted(rows, key=lambda row: row[2])
    sizes = [count for count in (sum(row[2] == k for row in rows) for k in range(3)) if count]
    return sample([row[0] for row in rows], [row[1] for row in rows], sizes)


@given(ROWS)
def test_tau_is_that_of_all_pairs_within_strata(rows: list[tuple[int, int, int]]) -> None:
    one, wanted = of_rows(rows), brute_tau(of_rows(rows))
    found = kendall(one)
    assert found == (None if wanted is None else pytest.approx(wanted, abs=1e-12))


@given(ROWS, st.randoms(use_true_random=False))
def test_laws(rows: list[tuple[int, int, int]], random: object) -> None:
    """The order of masks changes nothing, nor does a rising map tau and rho; a falling map or another sign negates."""
    one = of_rows(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    moved = of_rows([(x**3 + 5, y, k) for x, y, k in rows])
    negated = of_rows([(-x, y, k) for x, y, k in rows])
    for statistic in (kendall, spearman, pearson):
        value = statistic(one)
        if value is None:
            assert statistic(negated) is None
            continue
        assert statistic(of_rows(shuffled)) == pytest.approx(value, abs=1e-9)
        assert statistic(negated) == pytest.approx(-value, abs=1e-9)
        if statistic is not pearson:
            assert statistic(moved) == pytest.approx(value, abs=1e-9)
        scaled = Sample(one.x * 2 + 1, one.y / 3, one.x_rank, one.y_rank, one.strata)
        assert statistic(scaled) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "errors", "wanted"),
    [
        ([3.0, 1.0, 2.0], None, [2, 0, 1]),
        ([1.0, 1.0, 2.0], None, [0, 0, 1]),
        ([1.0, 1.1, 2.0], [0.06, 0.06, 0.0], [0, 0, 1]),
        ([1.0, 1.1, 1.2], [0.06, 0.06, 0.06], [0, 0, 0]),  # linked, though the ends are apart
        ([1.0, 1.1, 1.2], [0.0, 0.0, 0.3], [0, 0, 0]),  # a wide bound reaches past its neighbour
        ([1.0, 1.1, 1.2], [0.04, 0.04, 0.04], [0, 1, 2]),
        ([], None, []),
    ],
)
def test_ranks(values: list[float], errors: list[float] | None, wanted: list[int]) -> None:
    assert dense_ranks(np.array(values), None if errors is None else np.array(errors)).tolist() == wanted


# --- p-values


def test_exact_p_is_the_share_of_all_orders() -> None:
    one = sample([1, 2, 3, 4, 1, 2, 3], [1, 2, 4, 3, 2, 1, 3], [4, 3])
    score = round(kendall(one) * 9)  # 6 + 3 pairs
    scores = []
    for first, second in product(permutations(range(4)), permutations(range(3))):
        pairs = [(a, b) for order in (first, second) for a, b in combinations(order, 2)]
        scores.append(sum(1 if a < b else -1 for a, b in pairs))
    share = np.mean(np.abs(scores) >= abs(score))
    assert kendall_p(one) == (pytest.approx(share), "exact")
    assert kendall_p(sample([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])) == (pytest.approx(2 / 120), "exact")


def test_the_normal_variance_with_ties_is_that_of_all_orders() -> None:
    x, y = [1, 1, 2, 3, 3], [1, 2, 2, 2, 3]
    scores = []
    for order in permutations(y):
        scores.append(sum(np.sign(x[i] - x[j]) * np.sign(order[i] - order[j]) for i, j in combinations(range(5), 2)))
    one = sample(x, y)
    score = sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in combinations(range(5), 2))
    assert kendall_p(one) == (pytest.approx(2 * stats.norm.sf(score / np.std(scores))), "normal")


def test_a_large_sample_without_ties_goes_by_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random(80).tolist(), rng.random(80).tolist()
    assert kendall_p(sample(x, y)) == (pytest.approx(stats.kendalltau(x, y).pvalue), "normal")


def test_permutation_p_is_about_the_share_of_all_orders() -> None:
    one = sample([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])
    x, y = centred(one.x, one.strata), centred(one.y, one.strata)
    exact = np.mean([abs(x @ y[list(order)]) >= abs(x @ y) - 1e-9 for order in permutations(range(6))])
    found = permutation_p(x, y, shuffles(alone(one), 6, np.random.default_rng(1)))
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 9999))
    assert permutation_p(x * 0 + x, x, shuffles(alone(one), 6, np.random.default_rng(1))) >= 1 / 10000


def test_with_ties_and_few_masks_p_of_tau_is_the_share_of_all_orders() -> None:
    """Two values of three masks each: 2 of 20 orders are as far apart, which the normal distribution calls 0.0495."""
    one = sample([1, 1, 1, 2, 2, 2], [1, 2, 3, 4, 5, 6])
    found, test = kendall_p(one, shuffles(alone(one), 6, np.random.default_rng(0)))
    assert test == "permutation"
    assert found == pytest.approx(0.1, abs=0.012)
    assert kendall_p(one) == (pytest.approx(0.0495, abs=1e-3), "normal")


def test_masks_seen_twice_are_shuffled_with_all_they_have() -> None:
    clusters = np.array([0, 1, 2, 3, 2, 1, 0, 3])
    one = sample([1, 2, 3, 4, 3, 2, 1, 4], [1, 2, 3, 4, 3, 2, 1, 4], [4, 4])
    orders = shuffles(exchangeable(one.strata, clusters), 8, np.random.default_rng(0))
    assert (clusters[orders[:, :4]] == clusters[orders[:, [6, 5, 4, 7]]]).all()
    assert len({tuple(order) for order in orders.tolist()}) == 24
    # As one of them alone; were the two independent, p would be 2 in 24 squared.
    assert kendall_permutation_p(one, orders) == pytest.approx(2 / 24, abs=0.012)


def test_permutations_of_tau_in_pieces_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = sample([1, 1, 2, 3, 1, 2, 2], [1, 2, 2, 3, 2, 1, 3], [4, 3])
    orders = shuffles(alone(one), 7, np.random.default_rng(0))
    whole = kendall_permutation_p(one, orders)
    monkeypatch.setattr("pai_cli.ranking.statistics.PAIRS_AT_ONCE", 5000)
    assert kendall_permutation_p(one, orders) == whole
    share = np.mean([abs(brute_s(one, order)) >= abs(brute_s(one, np.arange(7))) for order in orders[:500]])
    assert whole == pytest.approx(share, abs=0.08)


def brute_s(one: Sample, order: np.ndarray) -> float:
    y = one.y[order]
    pairs = [pair for at in one.strata for pair in combinations(at.tolist(), 2)]
    return float(sum(np.sign(one.x[i] - one.x[j]) * np.sign(y[i] - y[j]) for i, j in pairs))


def test_the_variance_of_masks_seen_twice_is_that_of_all_their_orders() -> None:
    one = sample([1, 4, 2, 3, 5, 4, 3, 7], [1, 2, 3, 9, 3, 2, 5, 4], [4, 4])
    clusters = np.array([0, 1, 2, 3, 2, 1, 0, 3])
    x, y = centred(one.x, one.strata), centred(one.y, one.strata)
    products = []
    for order in permutations(range(4)):
        moved = np.array([order.index(cluster) for cluster in range(4)])
        entries = [*moved, *(4 + np.argsort(clusters[4:])[moved[clusters[4:]]])]
        products.append(x @ y[entries])
    groups = exchangeable(one.strata, clusters)
    raised = dependence(x, y, one.strata, groups)
    assert raised > 1
    assert product_p(x, y, one.strata, raised) == pytest.approx(2 * stats.norm.sf(abs(x @ y) / np.std(products)))
    assert dependence(x, y, one.strata, alone(one)) == 1.0
    twice = sample([1, 4, 2, 3] * 2, [1, 2, 3, 9] * 2, [4, 4])  # variance of a sum of equals: four, not two
    x, y = centred(twice.x, twice.strata), centred(twice.y, twice.strata)
    assert dependence(x, y, twice.strata, exchangeable(twice.strata, np.arange(8) % 4)) == pytest.approx(2)


def test_shuffles_stay_within_strata() -> None:
    groups = exchangeable((np.array([0, 2]), np.array([1, 3, 4])), np.arange(5))
    orders = shuffles(groups, 5, np.random.default_rng(0))
    assert {tuple(sorted(order)) for order in orders[:, [0, 2]].tolist()} == {(0, 2)}
    assert {tuple(sorted(order)) for order in orders[:, [1, 3, 4]].tolist()} == {(1, 3, 4)}
    assert len({tuple(order) for order in orders.tolist()}) == 12


def test_t_without_freedom_says_nothing() -> None:
    assert t_p(0.5, 4, 3) == 1.0
    assert t_p(1.0, 5, 1) == 0.0


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, None, 0.04, 0.03], [0.03, None, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.2], [0.2]),
        ([None], [None]),
        ([], []),
    ],
)
def test_holm_by_hand(found: list[float | None], wanted: list[float | None]) -> None:
    corrected = holm(found)
    assert corrected == [None if p is None else pytest.approx(p) for p in wanted]


@pytest.mark.parametrize(
    ("y", "sizes", "wanted"),
    [
        ([1, 2, 3, 4], [4], 2 / 24),
        ([1, 1, 2], [3], 2 / 3),  # three orders
        ([1, 2, 3, 1, 2], [3, 2], 2 / 12),
        ([1, 2], [1, 1], 1.0),
        ([1], [1], 1.0),
    ],
)
def test_smallest_p(y: list[float], sizes: list[int], wanted: float) -> None:
    one = sample(list(range(len(y))), y, sizes)
    assert smallest_p(one.y_rank, alone(one)) == pytest.approx(wanted)


def test_masks_seen_twice_have_the_orders_of_once() -> None:
    one = sample([1, 2, 3, 4] * 2, [1, 2, 3, 4, 1, 2, 4, 4], [4, 4])
    assert smallest_p(one.y_rank, exchangeable(one.strata, np.array([0, 1, 2, 3] * 2))) == pytest.approx(2 / 24)
    # Four masks, of which the first is in one stratum alone: the other three can change places.
    assert smallest_p(one.y_rank, exchangeable(one.strata, np.array([0, 1, 2, 3, 4, 1, 2, 3]))) == pytest.approx(2 / 6)


# --- bootstrap samples


def repeated(one: Sample, counts: np.ndarray) -> Sample:
    """The masks as often as they were drawn."""
    at = [np.repeat(stratum, counts[stratum].astype(int)) for stratum in one.strata]
    ends = np.cumsum([len(part) for part in at])
    strata = tuple(np.arange(end - len(part), end) for part, end in zip(at, ends.tolist(), strict=True))
    every = np.concatenate(at)
    return Sample(one.x[every], one.y[every], dense_ranks(one.x[every]), dense_ranks(one.y[every]), strata)


@given(ROWS, st.integers(0, 9))
def test_a_bootstrap_sample_is_what_its_repeated_masks_are(rows: list[tuple[int, int, int]], seed: int) -> None:
    one = of_rows(rows)
    other = Sample(-one.x, one.y, dense_ranks(-one.x), one.y_rank, one.strata)
    counts = draw(one.strata, np.arange(one.size), 6, np.random.default_rng(seed))
    found = resampled([one, other], counts)
    assert found.shape == (2, 3, 6)
    for k in range(6):
        drawn = repeated(one, counts[:, k])
        wanted = [kendall(drawn), spearman(drawn), pearson(drawn)]
        assert found[0, :, k].tolist() == [
            pytest.approx(math.nan if v is None else v, abs=1e-9, nan_ok=True) for v in wanted
        ]
        np.testing.assert_allclose(found[1, :, k], -found[0, :, k], atol=1e-9)


def test_draws_fill_each_stratum_and_keep_a_mask_together() -> None:
    strata = (np.array([0, 1, 2]), np.array([3, 4, 5]))
    clusters = np.array([0, 1, 2, 0, 1, 3])  # the masks 0 and 1 are in both
    counts = draw(strata, clusters, 50, np.random.default_rng(0))
    assert (counts[:3].sum(axis=0) == 3).all()
    assert (counts[0] == counts[3]).all()
    assert (counts[1] == counts[4]).all()
    assert (counts[5] == 1).all()  # alone in what is left of its stratum
    again = draw(strata, clusters, 50, Resampling(50, 0).generator(0))
    assert not (again == draw(strata, clusters, 50, Resampling(50, 1).generator(0))).all()
    assert (again == draw(strata, clusters, 50, Resampling(50, 0).generator(0))).all()


def test_no_metric_no_samples() -> None:
    assert resampled([], np.ones((3, 5), dtype=np.float32)).shape == (0, 3, 5)


def test_in_pieces_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one = sample(rng.random(30).tolist(), rng.random(30).tolist(), [10, 20])
    counts = draw(one.strata, np.arange(30), 40, rng)
    whole = resampled([one], counts)
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    np.testing.assert_allclose(resampled([one], counts), whole, atol=1e-12)


def test_a_large_stratum_to_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x = rng.random(400)
    one = sample(x.tolist(), (x + rng.random(400)).tolist())
    counts = draw(one.strata, np.arange(400), 400, rng)
    monkeypatch.setattr(bootstrap, "LARGE_STRATUM", 400)
    exact = resampled([one], counts)[0]
    monkeypatch.setattr(bootstrap, "LARGE_STRATUM", 100)
    monkeypatch.setattr(bootstrap, "LARGE_RANKED", 100)
    monkeypatch.setattr(bootstrap, "CHUNK", 2**13)
    near = resampled([one], counts)[0]
    np.testing.assert_allclose(near[2], exact[2], atol=1e-12)  # r is exact at any size
    for k, moved in enumerate((0.03, 0.08)):  # tau, rho
        assert not (near[k] == exact[k]).all()
        assert np.std(near[k] - exact[k]) < 0.25 * np.std(exact[k])
        wanted = np.percentile(exact[k], (2.5, 97.5))
        np.testing.assert_allclose(np.percentile(near[k], (2.5, 97.5)), wanted, atol=moved * np.ptp(wanted))


@pytest.mark.parametrize("ties", [1, 10])
def test_first_order_is_exact_where_each_mask_is_drawn_once(monkeypatch: pytest.MonkeyPatch, ties: int) -> None:
    rng = np.random.default_rng(6)
    one = sample((rng.integers(0, 300 // ties, 300)).tolist(), rng.integers(0, 300 // ties, 300).tolist(), [120, 180])
    once = np.ones((300, 1), dtype=np.float32)
    wanted = [kendall(one), spearman(one), pearson(one)]
    monkeypatch.setattr(bootstrap, "LARGE_STRATUM", 150)  # one stratum of each sort
    monkeypatch.setattr(bootstrap, "LARGE_RANKED", 150)
    # The first-order stratum lacks the pairs of a mask with itself, 1 in 180.
    assert resampled([one], once)[0, :, 0].tolist() == [pytest.approx(value, abs=2e-3) for value in wanted]


def test_intervals_cover_the_truth() -> None:
    """Of 150 samples of 30 from a normal distribution with correlation a half, tau is a third; 95% should hold it."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(150):
        x = rng.normal(size=30)
        one = sample(x.tolist(), (x / 2 + math.sqrt(0.75) * rng.normal(size=30)).tolist())
        low, high = np.percentile(resampled([one], draw(one.strata, np.arange(30), 400, rng))[0, 0], (2.5, 97.5))
        held += low <= 1 / 3 <= high
    assert 0.88 <= held / 150 <= 0.99
