"""How many singular values of a sparse graph are above a number, proved in the memory of its edges: what `certify` rests on
where a Gram matrix would be too large, and what finds values that stand too close together for an iteration.

For a number s the symmetric matrix M = [[s I, A], [A^T, s I]] has the eigenvalues s - sigma_i, s + sigma_i and s, so as many
negative ones as there are singular values above s. Symmetric elimination writes it as L D L^T beside a rest S, and M has
as many negative eigenvalues as D and S together (Sylvester; Haynsworth 1968). In floating point that is exact for a matrix
M + E, and |E| <= gamma_(k+3) (|L| |D| |L^T| + |S|) entry by entry, where an entry is changed at most k times (Higham,
"Accuracy and Stability of Numerical Algorithms", 8.1 and 10.1); its largest row sum is summed up on the way and bounds the
norm. By Weyl, where `below` are counted, at most `below` singular values are above s + |E|, and at least `below` above
s - |E|. Nothing is exchanged for stability: instability would make |E| large, and the count would then prove little.

A factor of a graph without small separators (a random one) fills up whatever the order (Lipton, Rose, Tarjan 1979): what is
left of it becomes dense. That rest is factored in blocks, as a proof alone (`definite`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pai_cli.spectral.compiled import calls
from pai_cli.spectral.compiled.calls import EdgeLists, Eliminated
from pai_cli.spectral.definite import definite_within, least_pair
from pai_cli.spectral.result import EPS, Floats, Outcome

MOST_REST = 2**14  # vertices of a rest that is proved: 2 GiB, a minute

COUNTED_REST = 512  # of one whose eigenvalues are counted

LEAST_ENTRIES = 2**25  # that may be kept at once: 400 MB; of larger graphs four times the edges

MOST_WORK = 2.0**34  # entries read, of a proof: a minute or two


@dataclass(frozen=True)
class Count:
    """At most `above` singular values are above s + error, and at least as many above s - error."""

    above: int
    error: float


def _eliminated(edges: EdgeLists, at: float, most_below: int, most_rest: int, work: float) -> Eliminated | None:
    """As `calls.eliminate`; None also for what left the range of float64 on the way."""
    entries = max(LEAST_ENTRIES, 4 * len(edges.value))
    found = calls.eliminate(edges, at, most_below=most_below, most_rest=most_rest, most_entries=entries, most_work=work)
    if found is None or not math.isfinite(found.weight) or not (found.rest is None or np.isfinite(found.rest).all()):
        return None
    return found


def _moved(found: Eliminated) -> float:
    """A bound on |E|; the weights that it rests on were summed up to a few roundings."""
    roundings = found.updates + 3
    return 1.001 * roundings * EPS / 2 / (1 - roundings * EPS) * found.weight


def count_above(edges: EdgeLists, at: float, work: float, rest: int = COUNTED_REST) -> Count | None:
    """How many singular values are above a positive number, of 0, 1 and 2 or more; None where too little is sparse."""
    found = _eliminated(edges, at, 1, rest, work)
    if found is None:
        return None
    below, error = found.below, _moved(found)
    if found.rest is not None and len(found.rest):
        values = np.linalg.eigvalsh(found.rest)
        below += int(np.count_nonzero(values < 0))
        error += (2 * len(values) + 10) * EPS * float(np.abs(values).max())
    return Count(min(below, 2), error) if error < at / 2 else None


def proved_at_most(edges: EdgeLists, at: float, most: int) -> Count | Outcome:
    """That at most `most` (0 or 1) singular values are above a number, within an error; else why it is not proved."""
    found = _eliminated(edges, at, most, MOST_REST, MOST_WORK)
    if found is None:
        return Outcome.TOO_FULL
    if found.rest is None:
        return Outcome.MISSED
    error, side = _moved(found), len(found.rest)
    if side <= COUNTED_REST:
        values = np.linalg.eigvalsh(found.rest) if side else np.zeros(0)
        if found.below + np.count_nonzero(values < 0) > most:
            return Outcome.MISSED
        error += (2 * side + 10) * EPS * float(np.abs(values).max(initial=0.0))
    else:
        lifted = _lifting(found.rest) if found.below < most else None
        far = definite_within(found.rest, lifted)
        if far is None:
            return Outcome.MISSED
        error += far
    return Count(most, error) if error < at / 2 else Outcome.TOO_FULL


def _lifting(rest: Floats) -> Floats | None:
    """The vector whose outer product lifts the one negative eigenvalue above 0; None where there is none."""
    value, vector = least_pair(rest)
    return vector * math.sqrt(-2 * value) if value < 0 else None
