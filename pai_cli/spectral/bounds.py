"""From eigenvalues of a Gram matrix to singular values with error bounds: what each kind of evidence is worth.

Everything is worked out for many problems at once. lambda is an eigenvalue of the Gram matrix G, sigma its square root.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pai_cli.spectral.result import EPS, Floats, Outcome, Pairs, root_intervals
from pai_cli.spectral.solver_table import Eigenpairs, Status

OUTCOMES = {
    Status.ALL_VALUES: Outcome.PROVED,
    Status.PROVED: Outcome.PROVED,
    Status.BOUNDED: Outcome.PROVED,
    Status.NOT_ASKED: Outcome.NOT_PROVED,
    Status.NOT_CONVERGED: Outcome.NOT_CONVERGED,
    Status.MISSED: Outcome.MISSED,
}


def pairs_of(found: Eigenpairs, forming: float | Floats, free_from: float | Floats = math.inf) -> Pairs:
    """Singular values with bounds. Problems that did not converge, or whose proof failed, stay without values.

    `forming`: how far the Gram matrices themselves may be off, relative to sigma_1^2 (0 for 0/1 masks: integers).
    `free_from`: the side past which the solver went without a Gram matrix, as it is to be told. Of all problems, or of each.
    """
    pairs, forming = Pairs.blank(len(found)), np.broadcast_to(forming, len(found))
    first, second = np.maximum(found["value"], 0.0).T
    status = found["status"].astype(np.int64)
    slack = _direct(found, first, forming)
    edges = {"low_1": first - slack, "high_1": first + slack, "low_2": second - slack, "high_2": second + slack}
    for kind, bounds in ((Status.PROVED, _proved), (Status.NOT_ASKED, _unproved), (Status.BOUNDED, _bounded)):
        at = status == kind
        if np.any(at):
            for name, values in bounds(found[at], first[at], second[at], forming[at]).items():
                edges[name][at] = values
    answered = np.isin(status, (Status.ALL_VALUES, Status.PROVED, Status.NOT_ASKED, Status.BOUNDED))
    for value, low_name, high_name, sigma, error in (
        (first, "low_1", "high_1", pairs.sigma_1, pairs.error_1),
        (second, "low_2", "high_2", pairs.sigma_2, pairs.error_2),
    ):
        roots, errors = root_intervals(edges[low_name], value, edges[high_name])
        sigma[answered], error[answered] = roots[answered], errors[answered]
    pairs.outcome = [OUTCOMES[kind] for kind in status.tolist()]
    names = np.where(found["side"] > free_from, "matrix-free", "power")
    pairs.solver = np.where(status == Status.ALL_VALUES, "gram", names).tolist()
    pairs.products = found["products"].astype(np.int64)
    return pairs


def _direct(found: Eigenpairs, first: Floats, forming: Floats) -> Floats:
    """A backward stable eigensolver moves each eigenvalue by at most p(n) eps lambda_1 (LAPACK Users' Guide, 4.7).

    p(n) is taken as 2n + 10, far above what is seen.
    """
    slack: Floats = ((2 * found["side"] + 10) * EPS + forming) * first
    return slack


def _rounding(found: Eigenpairs, forming: Floats, first: Floats) -> Floats:
    """What floating point may have added to a Rayleigh quotient or a residual, and the error of the Gram matrix."""
    rounding: Floats = 4 * found["side"] * EPS * found["frobenius"] + forming * first
    return rounding


def _proved(found: Eigenpairs, first: Floats, second: Floats, forming: Floats) -> dict[str, Any]:
    """Values below, proof above.

    Rayleigh-Ritz values are never above the eigenvalues they stand for (Cauchy). That t I + theta v v^T - G has a Cholesky
    factor proves lambda_1(G - theta v v^T) < t, and so lambda_2(G) < t, for any vector v (Weyl). The factorisation that was
    seen is that of a matrix at most gamma_(n+1) / (1 - gamma_(n+1)) times the trace away (Demmel 1989; Rump,
    "Verification of positive definiteness", BIT 2006); one step more stands for the division.
    """
    side, rounding = found["side"], _rounding(found, forming, first)
    unit = (side + 2) * EPS / 2
    factoring = unit / (1 - 2 * unit) * found["trace"]
    entries = 4 * EPS * (found["frobenius"] + first + found["shift"])
    above = found["shift"] + factoring + entries
    return {
        "low_1": first - rounding,
        "high_1": _first_bound(found, first, above, rounding) + forming * first,
        "low_2": second - rounding,
        "high_2": above + forming * first,
    }


def _first_bound(found: Eigenpairs, first: Floats, above: Floats, rounding: Floats) -> Floats:
    """An upper bound on the first eigenvalue, from `above`, a bound on lambda_1(G - theta v v^T), v the first vector.

    A bound on lambda_2(G) alone is not enough. In a basis that begins with v, G is [[theta, b^T], [b, C]] with |b| the
    residual, and C is a compression of G - theta v v^T, so lambda_1(C) <= `above` (Cauchy). So lambda_1 <= max(theta,
    above) + |b|, and where theta > above also lambda_1 - theta = b^T (lambda_1 I - C)^-1 b <= |b|^2 / (theta - above).
    """
    residual = found["residual"][:, 0] + rounding
    bound = np.maximum(first, above) + residual
    apart = first > above
    bound[apart] = np.minimum(bound[apart], first[apart] + residual[apart] ** 2 / (first[apart] - above[apart]))
    widened: Floats = bound + rounding
    return widened


def _bounded(found: Eigenpairs, first: Floats, second: Floats, forming: Floats) -> dict[str, Any]:
    """Values below, norms above: by repeated squaring (docs/metrics.md has the derivation).

    `trace` bounds lambda_1(G), and `shift` lambda_1(G - theta v v^T), which is at least lambda_2(G) (Weyl); neither counts
    its rounding. Each squaring is off by at most n gamma_n of the square of the norm, and counts half as much as the one
    before: together n gamma_n / (1 - n gamma_n), where gamma_n = n u / (1 - n u) with u = EPS / 2 (Higham 2002, 3.5); n^2
    EPS is taken for it. What the scalings, the logarithms and the last norm lose is below 64 n EPS. Entries of the deflated
    matrix are off as in `_proved`.
    """
    side, rounding = found["side"], _rounding(found, forming, first)
    widened = 1 + (side * side + 64 * side) * EPS
    entries = 4 * EPS * (found["frobenius"] + first)
    return {
        "low_1": first - rounding,
        "high_1": found["trace"] * widened + forming * first,
        "low_2": second - rounding,
        "high_2": found["shift"] * widened + entries + forming * first,
    }


def _unproved(found: Eigenpairs, first: Floats, second: Floats, forming: Floats) -> dict[str, Any]:
    """An eigenvalue lies within the residual of each value: which one, a residual does not say."""
    rounding = _rounding(found, forming, first)
    reach_1, reach_2 = (found["residual"] + rounding[:, None]).T
    return {
        "low_1": first - reach_1,
        "high_1": first + reach_1,
        "low_2": second - reach_2,
        "high_2": second + reach_2,
    }
