"""Compatibility, Copeland score and overlap of consecutive masks, against plain loops over exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.spectral import junctions as module
from pai_cli.spectral.junctions import (
    NOTHING_READ,
    NOTHING_SHARED,
    NOTHING_WRITTEN,
    Degrees,
    Junction,
)
from pai_cli.spectral.junctions import compatibility as compatibility_of
from pai_cli.spectral.junctions import copeland as copeland_of
from pai_cli.spectral.junctions import overlap as overlap_of
from pai_cli.spectral.result import Measure


def masks(seed: int, sizes: tuple[int, int, int, int], density: float) -> tuple[np.ndarray, np.ndarray]:
    columns, outputs, rows, k = sizes
    random = np.random.default_rng(seed)
    return random.random((outputs, columns)) < density, random.random((rows, outputs * k)) < density


def compatibility(p: np.ndarray, q: np.ndarray, k: int) -> Measure:
    return compatibility_of(Degrees.of(p), Degrees.of(q), Junction.regular(len(p), k))


def copeland(p: np.ndarray, q: np.ndarray, k: int) -> Measure:
    return copeland_of(Degrees.of(p), Degrees.of(q), Junction.regular(len(p), k))


def overlap(q: np.ndarray, k: int) -> Measure:
    return overlap_of(q, Junction.regular(q.shape[1] // k, k))


def plain_compatibility(p: np.ndarray, q: np.ndarray, k: int) -> Fraction | None:
    live = [i for i in range(len(p)) if any(p[i])]
    read = [i for i in live if sum(sum(q[:, i * k + j]) for j in range(k)) > 0]
    return Fraction(len(read), len(live)) if live else None


def plain_copeland(p: np.ndarray, q: np.ndarray, k: int) -> Fraction | None:
    live = [i for i in range(len(p)) if any(p[i])]
    rows, columns = sum(any(row) for row in q), sum(any(column) for column in p.T)
    if not live or not rows:
        return None
    terms = [
        Fraction(int(sum(q[:, i * k + j])), rows) / Fraction(int(sum(p[i])), columns) for i in live for j in range(k)
    ]
    return sum(terms, Fraction(0)) / len(terms)


def plain_overlap(q: np.ndarray, k: int) -> Fraction | None:
    terms = []
    for channel in range(q.shape[1] // k):
        targets = [{row for row in range(len(q)) if q[row, channel * k + j]} for j in range(k)]
        if smallest := min(map(len, targets)):
            terms.append(Fraction(len(set.intersection(*targets)), smallest))
    return sum(terms, Fraction(0)) / len(terms) if terms else None


def assert_is(found: Measure, wanted: Fraction | None) -> None:
    assert found.present == (wanted is not None)
    if wanted is not None:
        assert found.value is not None
        assert found.error is not None
        assert abs(Fraction(found.value) - wanted) <= Fraction(found.error)
        assert found.error <= 1e-14 * max(1.0, found.value)


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 7), st.integers(1, 9)),
    st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.9, 1.0]),
)
def test_they_are_what_plain_loops_give(seed: int, sizes: tuple[int, int, int, int], density: float) -> None:
    p, q = masks(seed, sizes, density)
    k = sizes[3]
    assert_is(compatibility(p, q, k), plain_compatibility(p, q, k))
    assert_is(copeland(p, q, k), plain_copeland(p, q, k))
    assert_is(overlap(q, k), plain_overlap(q, k))


def test_dense_layers_are_in_full_agreement() -> None:
    p, q = np.ones((4, 6), bool), np.ones((5, 4 * 9), bool)
    assert [one.value for one in (compatibility(p, q, 9), copeland(p, q, 9), overlap(q, 9))] == [1.0, 1.0, 1.0]


def test_known_answers() -> None:
    p = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)  # outputs 0 and 1 are live, two columns are
    q = np.array([[1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0]], bool)  # two positions for each output of p
    assert compatibility(p, q, 2).value == 0.5  # output 1 is read by none
    assert copeland(p, q, 2).value == pytest.approx((2 / 2 / 1 + 1 / 2 / 1 + 0 + 0) / 4)
    assert overlap(q, 2).value == pytest.approx((1 / 1 + 1 / 1) / 2)  # of channels 0 and 2


def test_what_is_missing_says_why() -> None:
    p, q = np.ones((2, 3), bool), np.ones((4, 2), bool)
    none_p, none_q = np.zeros_like(p), np.zeros_like(q)
    assert compatibility(none_p, q, 1) == copeland(none_p, q, 1) == Measure.missing(NOTHING_WRITTEN)
    assert copeland(p, none_q, 1) == Measure.missing(NOTHING_READ)
    assert compatibility(p, none_q, 1).value == 0.0
    assert overlap(none_q, 1) == Measure.missing(NOTHING_SHARED)


def test_permuting_outputs_with_their_columns_changes_nothing() -> None:
    p, q = masks(0, (9, 8, 7, 4), 0.3)
    order = np.random.default_rng(1).permutation(8)
    turned = q.reshape(7, 8, 4)[:, order].reshape(7, -1)
    for one, other in (
        (compatibility(p, q, 4), compatibility(p[order], turned, 4)),
        (overlap(q, 4), overlap(turned, 4)),
    ):
        assert one.value == pytest.approx(other.value, rel=1e-15)
    assert copeland(p, q, 4).value == pytest.approx(copeland(p[order], turned, 4).value, rel=1e-15)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.4, 0.9]))
def test_where_outputs_stand_at_unequal_numbers_of_columns(seed: int, density: float) -> None:
    """As after a concatenation, a slice, or a crop before a flatten: some columns are of others, some outputs go nowhere."""
    random = np.random.default_rng(seed)
    p, q = random.random((6, 5)) < density, random.random((7, 11)) < density
    at = np.sort(random.choice(6 * 11, random.integers(1, 20), replace=False))
    pairs = [(int(i) // 11, int(i) % 11) for i in at]
    where = Junction(*np.array(pairs, np.int64).T)
    reached = sorted({i for i, _ in pairs})
    live = [i for i in reached if p[i].any()]
    read = [i for i in live if any(q[:, j].any() for o, j in pairs if o == i)]
    assert_is(compatibility_of(Degrees.of(p), Degrees.of(q), where), Fraction(len(read), len(live)) if live else None)
    rows, columns = int(q.any(axis=1).sum()), int(p.any(axis=0).sum())
    ratios = [
        Fraction(int(q[:, j].sum()), rows) / Fraction(int(p[i].sum()), columns) for i, j in pairs if i in live and rows
    ]
    wanted = sum(ratios, Fraction(0)) / len(ratios) if ratios else None
    assert_is(copeland_of(Degrees.of(p), Degrees.of(q), where), wanted)
    terms = []
    for i in reached:
        targets = [set(np.flatnonzero(q[:, j]).tolist()) for o, j in pairs if o == i]
        if smallest := min(map(len, targets)):
            terms.append(Fraction(len(set.intersection(*targets)), smallest))
    assert_is(overlap_of(q, where), sum(terms, Fraction(0)) / len(terms) if terms else None)


def test_a_mask_of_many_rows_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    _, q = masks(0, (3, 6, 40, 4), 0.7)
    whole = overlap(q, 4)
    monkeypatch.setattr(module, "BLOCK", 3 * 24)
    assert overlap(q, 4) == whole
    assert_is(whole, plain_overlap(q, 4))
