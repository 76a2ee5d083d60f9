"""The formulas of a graph's gaps with their error bounds, each once: of one graph in floats, of many in arrays.

With u = EPS / 2, an operation on floats is off by at most u times its result. What each bound takes for the operations of
its formula is more than twice what they can lose, so the bound's own rounding is covered too. sigma_1 and sigma_2 are taken
as the floats that they are, off by at most their errors. The graphs are those whose gaps are defined: d_L d_R >= 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pai_cli.spectral.result import EPS, Measure, lost

Numbers = Any  # a float, or a float64 array with an entry a graph

LEAST_DS_BOUND = 1.7  # sigma_1 >= sqrt(d_L d_R) >= sqrt(3), and 2 sqrt(sqrt(3) - 1) = 1.711...


class Arithmetic(NamedTuple):
    """What plain operators do not do for floats and arrays alike."""

    sqrt: Callable[[Numbers], Numbers]
    maximum: Callable[[Numbers, float], Numbers]


ONE = Arithmetic(math.sqrt, max)
MANY = Arithmetic(np.sqrt, np.maximum)


class Sizes(NamedTuple):
    """Edges, and vertices of either side that have one; ints, or int64 arrays."""

    edges: Numbers
    n_L: Numbers
    n_R: Numbers


class Sigmas(NamedTuple):
    """The two largest singular values and their absolute error bounds."""

    first: Numbers
    second: Numbers
    first_error: Numbers
    second_error: Numbers


class Term(NamedTuple):
    """A value and the absolute bound on its error."""

    value: Numbers
    error: Numbers


def gaps(sizes: Sizes, sigmas: Sigmas, arithmetic: Arithmetic) -> dict[str, Term]:
    """dr, ds, their bounds, and both over their bounds.

    A mean degree less 1 is (edges - n) / n: taken from the degree itself, it would lose digits where that is close to 1.
    """
    sqrt, maximum = arithmetic
    edges, n_L, n_R = sizes
    first, second, first_error, second_error = sigmas
    dr_bound = sqrt((edges - n_L) / n_L) + sqrt((edges - n_R) / n_R)
    dr = Term(dr_bound - second, second_error + 4 * EPS * (dr_bound + second))
    dr_norm = dr.value / dr_bound
    off = first_error + 4 * EPS * first  # of sigma_1 - 1; and sqrt(x) - sqrt(x - off) = off / (sqrt(x) + sqrt(x - off))
    root = sqrt(first - 1)
    ds_bound = Term(2 * root, 2 * off / (root + sqrt(maximum(first - 1 - off, 0.0))) + 4 * EPS * root)
    ds = Term(ds_bound.value - second, second_error + ds_bound.error + 4 * EPS * (ds_bound.value + second))
    share = second / ds_bound.value  # ds_norm is 1 - share
    share_error = (second_error + share * ds_bound.error) / maximum(ds_bound.value - ds_bound.error, LEAST_DS_BOUND)
    return {
        "dr": dr,
        "dr_bound": Term(dr_bound, 4 * EPS * dr_bound),
        "dr_norm": Term(dr_norm, dr.error / dr_bound + 4 * EPS * abs(dr_norm)),
        "ds": ds,
        "ds_bound": ds_bound,
        "ds_norm": Term(ds.value / ds_bound.value, share_error + 4 * EPS * (1 + share)),
    }


def spread(degrees: Any, total: int) -> tuple[Measure, Measure]:
    """The standard deviation of one degree or more, all above 0, and that over their mean.

    degrees: int64; total: their sum. With n of them, both come of the exact integer n sum(k^2) - sum(k)^2, n^2 times the
    variance.
    """
    count = len(degrees)
    squares = int(np.square(degrees.astype(np.uint64)).sum())  # below 2^64 for any matrix that there is room for
    root = math.sqrt(count * squares - total**2)
    return Measure.of(root / count), Measure.of(root / total)


def mean(values: Sequence[float], errors: Sequence[float]) -> Measure:
    """The mean of one value or more and of their errors, and what the divisions lose. The sum may be past float64.

    The values may be products of two floats; their rounding is counted here.
    """
    count = len(values)
    parts = [value / count for value in values]
    spread = math.fsum([error / count for error in errors]) + 2 * EPS * math.fsum(map(abs, parts))
    return Measure.of(math.fsum(parts), spread + lost(4 * count, *values, *errors))


def mean_of(measures: Sequence[Measure]) -> Measure:
    """The mean of measures that are all present, at least one of them."""
    return mean([one.value for one in measures if one.value is not None], [one.error or 0.0 for one in measures])


def norm_of(measures: Sequence[Measure]) -> Measure:
    """Euclidean norm with missing terms as 0 [F23]; it moves by no more than the norm of the errors."""
    value = math.hypot(*(one.value or 0.0 for one in measures))
    return Measure.of(value, math.hypot(*(one.error or 0.0 for one in measures)) + EPS * value)
