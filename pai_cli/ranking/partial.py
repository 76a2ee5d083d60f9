"""Association given controls: what a metric tells of accuracy that layer density, say, does not tell.

Of the taus of every two of metric x, accuracy y and controls z, each over pairs of masks within strata, each is turned into
the correlation r = sin(pi tau / 2) that normal variables of that tau have (Greiner 1909); with their partial correlation

    r_xy.z = (r_xy - r_xz R_zz^-1 r_zy) / sqrt((1 - r_xz R_zz^-1 r_zx) (1 - r_yz R_zz^-1 r_zy)),

the partial tau is 2/pi asin(r_xy.z). It is 0 for normal variables that go together through z alone, and for any rising map
of such. Kendall's own partial tau (1942), the same formula of the taus themselves, is not: x = z + noise and y = z + noise
have taus 1/3, 1/2 and 1/2, and it is 1/9.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pai_cli.ranking.bootstrap import Counts, interval, resampled_taus
from pai_cli.ranking.correlation import Statistic
from pai_cli.ranking.statistics import Floats, Ints, t_of

LEFT = 1e-6  # share of its variance that the controls leave, below which a variable is what they are
KNOWN = 0.95  # share of bootstrap samples with a value, under which there is no interval


def partial_correlations(related: Floats) -> Floats:
    """Of the first two of k >= 2 variables given the others, by matrices of correlations of shape (..., k, k): -1 to 1.

    NaN where the others leave nothing of one of the first two to tell apart, or where an entry is NaN. Of few masks a matrix
    that is made of taus may be none of correlations: then a value may be beyond 1.
    """
    first, controls = related[..., :2, :2], related[..., 2:, 2:]
    across = related[..., 2:, :2]
    known = np.asarray(np.isfinite(related).all(axis=(-1, -2)))
    if controls.shape[-1]:
        usable = known & (np.linalg.eigvalsh(np.where(known[..., None, None], controls, 0.0))[..., 0] > LEFT)
        safe = np.where(usable[..., None, None], controls, np.eye(controls.shape[-1]))
        first = first - np.swapaxes(across, -1, -2) @ np.linalg.solve(safe, across)
        known = usable
    x, y = first[..., 0, 0], first[..., 1, 1]
    known &= (x > LEFT) & (y > LEFT)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(known, first[..., 0, 1] / np.sqrt(x * y), np.nan)
    return found


def partial_taus(taus: Floats) -> Floats:
    """The partial tau of the first two variables given the others, by matrices of taus of shape (..., k, k): -1 to 1.

    What would be beyond 1 is 1, so that no bootstrap sample that is extreme is left out of its interval.
    """
    found: Floats = 2 / np.pi * np.arcsin(np.clip(partial_correlations(np.sin(np.pi / 2 * taus)), -1.0, 1.0))
    return found


def partial_tau(taus: Floats) -> float:
    """That of one matrix, shape (k, k); NaN also where its taus are those of no normal variables."""
    beyond = abs(float(partial_correlations(np.sin(np.pi / 2 * taus)))) > 1 + LEFT
    return np.nan if beyond else float(partial_taus(taus))


@dataclass(frozen=True)
class Held:
    """What metrics are held against: `y` and `controls`, dense ranks of shape (n,); the `strata` whose pairs are compared;
    and bootstrap samples, as `draw` counts them. `masks`: how many are independent, fewer than n where one is in several
    strata.
    """

    y: Ints
    controls: Sequence[Ints]
    strata: Sequence[Ints]
    counts: Counts
    masks: int

    def taus(self, xs: Sequence[Ints], counts: Counts) -> Iterator[Floats]:
        """Of each x, in turn, the taus of every two of x, y and the controls, shape (samples, variables, variables)."""
        shared = [self.y, *self.controls]
        size = len(shared)
        pairs = list(combinations(range(size), 2))
        with_each = [(at, size + k) for k in range(len(xs)) for at in range(size)]
        taus = resampled_taus([*shared, *xs], [*pairs, *with_each], self.strata, counts)
        matrix = np.zeros((counts.shape[1], size + 1, size + 1)) + np.eye(size + 1)
        for (i, j), tau in zip(pairs, taus, strict=False):
            matrix[:, i + 1, j + 1] = matrix[:, j + 1, i + 1] = tau
        for own in taus[len(pairs) :].reshape(len(xs), size, counts.shape[1]):
            matrix[:, 0, 1:] = matrix[:, 1:, 0] = own.T
            yield matrix.copy()


def partials(xs: Sequence[Ints], held: Held) -> list[Statistic]:
    """The partial tau of each metric, by its dense ranks, with accuracy given the controls; None where not defined.

    The interval: percentiles of the bootstrap samples, where nearly all have a value. p: two-sided, of a partial tau of 0,
    by the t distribution of the value over the standard deviation of those samples, with a degree of freedom less than
    masks for each stratum, each control and one more.
    """
    once = np.ones((len(held.y), 1), dtype=np.float32)
    freedom = held.masks - sum(len(at) > 0 for at in held.strata) - len(held.controls) - 1
    return [
        _statistic(partial_tau(seen[0]), partial_taus(drawn), freedom)
        for seen, drawn in zip(held.taus(xs, once), held.taus(xs, held.counts), strict=True)
    ]


def _statistic(value: float, samples: Floats, freedom: int) -> Statistic:
    if np.isnan(value):
        return Statistic(None)
    low, high = interval(samples, KNOWN)
    if abs(value) > 1 - LEFT:
        return Statistic(float(np.sign(value)))
    if low is None or freedom < 1:
        return Statistic(value)
    error = float(np.nanstd(samples, ddof=1))
    return Statistic(value, low, high, t_of(value / error, freedom) if error > 0 else None, test="bootstrap")
