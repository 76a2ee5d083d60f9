"""The formulas of graphs' gaps, their means and norms, with their error bounds: each once, of many graphs in arrays.

With u = EPS / 2, an operation on floats is off by at most u times its result. What each bound takes for the operations of
its formula is more than twice what they can lose, so the bound's own rounding is covered too. sigma_1 and sigma_2 are taken
as the floats that they are, off by at most their errors. The graphs are those whose gaps are defined: d_L d_R >= 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pai_cli.spectral.result import EPS, LEAST, Floats, Ints, Measure
from pai_cli.spectral.table import Column

LEAST_DS_BOUND = 1.7  # sigma_1 >= sqrt(d_L d_R) >= sqrt(3), and 2 sqrt(sqrt(3) - 1) = 1.711...


class Sizes(NamedTuple):
    """Edges, and vertices of either side that have one."""

    edges: Ints
    n_L: Ints
    n_R: Ints


class Sigmas(NamedTuple):
    """The two largest singular values and their absolute error bounds."""

    first: Floats
    second: Floats
    first_error: Floats
    second_error: Floats


class Term(NamedTuple):
    """Values and the absolute bounds on their errors."""

    value: Floats
    error: Floats


def gaps(sizes: Sizes, sigmas: Sigmas) -> dict[str, Term]:
    """dr, ds, their bounds, and both over their bounds; NaN where a singular value is.

    A mean degree less 1 is (edges - n) / n: taken from the degree itself, it would lose digits where that is close to 1.
    """
    edges, n_L, n_R = sizes
    first, second, first_error, second_error = sigmas
    dr_bound = np.sqrt((edges - n_L) / n_L) + np.sqrt((edges - n_R) / n_R)
    dr = Term(dr_bound - second, second_error + 4 * EPS * (dr_bound + second))
    dr_norm = dr.value / dr_bound
    off = first_error + 4 * EPS * first  # of sigma_1 - 1; and sqrt(x) - sqrt(x - off) = off / (sqrt(x) + sqrt(x - off))
    root = np.sqrt(first - 1)
    ds_bound = Term(2 * root, 2 * off / (root + np.sqrt(np.maximum(first - 1 - off, 0.0))) + 4 * EPS * root)
    ds = Term(ds_bound.value - second, second_error + ds_bound.error + 4 * EPS * (ds_bound.value + second))
    share = second / ds_bound.value  # ds_norm is 1 - share
    share_error = (second_error + share * ds_bound.error) / np.maximum(ds_bound.value - ds_bound.error, LEAST_DS_BOUND)
    return {
        "dr": dr,
        "dr_bound": Term(dr_bound, 4 * EPS * dr_bound),
        "dr_norm": Term(dr_norm, dr.error / dr_bound + 4 * EPS * abs(dr_norm)),
        "ds": ds,
        "ds_bound": ds_bound,
        "ds_norm": Term(ds.value / ds_bound.value, share_error + 4 * EPS * (1 + share)),
    }


def spreads(degrees: Sequence[Ints], totals: Ints, reasons: Sequence[str | None]) -> tuple[Column, Column]:
    """The standard deviation of each graph's degrees, all above 0, and that over their mean. `totals`: their sums.

    With n of them, both come of the exact integer n sum(k^2) - sum(k)^2, n^2 times the variance.
    """
    counts = np.array([len(some) for some in degrees])
    # The sums of squares are below 2^64 for any matrix that there is room for.
    squares = [int(np.square(some.astype(np.uint64)).sum()) for some in degrees]
    of_each = zip(counts.tolist(), totals.tolist(), squares, strict=True)
    roots = np.array([math.sqrt(count * square - total**2) for count, total, square in of_each])
    with np.errstate(invalid="ignore"):  # of no degrees
        return Column.computed(roots / counts, 0.0, reasons), Column.computed(roots / totals, 0.0, reasons)


def means(values: Floats, errors: Floats, sizes: Any, reasons: Sequence[str | None]) -> Column:
    """The mean of the first so many values and of their errors, of the next so many, and so on, and what the divisions
    lose. A sum may be past float64. Where there is none, a reason is given.

    The values may be products of two floats; their rounding is counted here.
    """
    counts = np.repeat(sizes, sizes)
    parts, shares = values / counts, errors / counts
    owners = np.repeat(np.arange(len(reasons)), sizes)
    some = np.bincount(owners[(values != 0) | (errors != 0)], minlength=len(reasons)) > 0
    spread = np.array(sums_of(shares, sizes)) + 2 * EPS * np.array(sums_of(np.abs(parts), sizes))
    lost = np.where(some, 4 * np.asarray(sizes) * LEAST, 0.0)
    return Column.computed(np.array(sums_of(parts, sizes)), spread + lost, reasons)


def sums_of(values: Floats, sizes: Any) -> list[float]:
    """The exact sum, rounded once, of the first so many values, of the next so many, and so on."""
    every, ends = values.tolist(), np.cumsum(sizes).tolist()
    return [math.fsum(every[begin:end]) for begin, end in pairwise([0, *ends])]


def mean_of(measures: Sequence[Measure]) -> Measure:
    """The mean of measures that are all present, at least one of them."""
    column = Column.listed(measures)
    return means(column.values, column.errors, [len(measures)], [None])[0]


def norms(terms: Sequence[Column], reasons: Sequence[str | None]) -> Column:
    """Each layer's Euclidean norm over the terms, with missing ones as 0 [F23]; it moves by no more than the norm of the
    errors.
    """
    values, errors = (np.nan_to_num([getattr(term, kind) for term in terms]).T for kind in ("values", "errors"))
    found = np.array([math.hypot(*row) for row in values.tolist()])
    spread = np.array([math.hypot(*row) for row in errors.tolist()])
    return Column.computed(found, spread + EPS * found, reasons)
