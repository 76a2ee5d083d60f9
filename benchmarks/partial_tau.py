"""Kendall's tau over pairs of masks of one stratum, given others, with bootstrap intervals over masks or whole kinds.

tau is the pooled tau-b of `pai rank`: concordant less discordant pairs over the root of the pairs that differ in the one and
in the other, each summed over the strata. Given others there are two forms:

- Kendall's own (1942): the partial correlation with taus in place of correlations. It is not 0 where x and y have nothing to
  do with each other but through z: normal x = z + noise, y = z + noise have taus 1/3, 1/2, 1/2, and it is 1/9.
- the normal one, in which that is 0: each tau becomes the correlation sin(pi tau / 2) that normal variables of that tau have
  (Greiner 1909), then their partial correlation, and that a tau again. Exact where ranks are those of normal variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 1000
CHUNK = 100
FAILED = 0.1
"""The share of bootstrap samples without a value from which on there is no interval."""


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95% interval, and whether one that holds for `together` values at once leaves 0 out."""

    value: float
    low: float
    high: float
    firm: bool

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


NONE = Estimate(np.nan, np.nan, np.nan, firm=False)


def drawn(groups: Ints, count: int, seed: int) -> Floats:
    """How often each mask is in each bootstrap sample, (count, n): masks are drawn within their group."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((count, len(groups)))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=count)
    return weights


def drawn_whole(kinds: Ints, count: int, seed: int) -> Floats:
    """The same where whole kinds are drawn, each with all its masks."""
    names, places = np.unique(kinds, return_inverse=True)
    taken = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    return taken[:, places].astype(np.float64)


def taus(variables: Sequence[Floats], strata: Ints, weights: Floats) -> Floats:
    """The pooled tau-b of every two variables in each sample, (samples, k, k); NaN where one does not vary."""
    same = strata[:, None] == strata[None, :]
    signs: list[NDArray[Any]] = [np.sign(x[:, None] - x[None, :]).astype(np.float32) * same for x in variables]
    k = len(signs)
    sums = np.empty((len(weights), k, k))
    for i in range(k):
        for j in range(i + 1):
            product = signs[i] * signs[j]
            for at in range(0, len(weights), CHUNK):
                w = weights[at : at + CHUNK].astype(np.float32)
                sums[at : at + CHUNK, i, j] = sums[at : at + CHUNK, j, i] = np.einsum("bn,bn->b", w @ product, w)
    sizes = np.sqrt(np.einsum("bii->bi", sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = sums / (sizes[:, :, None] * sizes[:, None, :])
    return found


def partial(matrix: Floats, *, normal: bool) -> Floats:
    """Of the first two variables given all others, (samples,); NaN where the others leave nothing to tell apart."""
    found = np.full(len(matrix), np.nan)
    usable = np.flatnonzero(np.isfinite(matrix).all(axis=(1, 2)))
    related = np.sin(np.pi / 2 * matrix[usable]) if normal else matrix[usable]
    clear = np.linalg.eigvalsh(related)[:, 0] > 1e-6  # whether it is a matrix of correlations, and has an inverse
    inverse = np.linalg.inv(related[clear])
    found[usable[clear]] = np.clip(-inverse[:, 0, 1] / np.sqrt(inverse[:, 0, 0] * inverse[:, 1, 1]), -1, 1)
    return 2 / np.pi * np.arcsin(found) if normal else found


def estimated(value: float, samples: Floats, together: int) -> Estimate:
    """The percentile interval; and `firm` by the normal interval of atanh at 1 - 0.05 / together."""
    known = samples[np.isfinite(samples)]
    if not np.isfinite(value) or len(known) < (1 - FAILED) * len(samples):
        return Estimate(value, np.nan, np.nan, firm=False)
    low, high = np.percentile(known, (2.5, 97.5))
    limit = 1 - 1e-9
    half = NormalDist().inv_cdf(1 - 0.025 / together) * np.arctanh(np.clip(known, -limit, limit)).std(ddof=1)
    firm = abs(np.arctanh(np.clip(value, -limit, limit))) > half
    return Estimate(value, float(low), float(high), bool(firm))


@dataclass(frozen=True)
class Strata:
    """The masks of equal network and density (strata), their kinds, and bootstrap samples of both sorts."""

    strata: Ints
    weights: Floats
    whole: Floats

    @classmethod
    def of(cls, strata: Ints, kinds: Ints, count: int = RESAMPLES, seed: int = 0) -> Strata:
        """With `count` samples of masks, and as many of kinds."""
        return cls(strata, drawn(strata, count, seed), drawn_whole(kinds, count, seed + 1))

    def association(
        self,
        variables: Sequence[Floats],
        *,
        normal: bool = True,
        by_kind: bool = False,
        together: int = 1,
    ) -> Estimate:
        """How the first two go together given the others, over the masks where all have a value."""
        there = np.isfinite(variables).all(axis=0)
        if there.sum() < 3:
            return NONE
        some = [one[there] for one in variables]
        value = partial(taus(some, self.strata[there], np.ones((1, int(there.sum())))), normal=normal)[0]
        weights = self.whole if by_kind else self.weights
        samples = partial(taus(some, self.strata[there], weights[:, there]), normal=normal)
        return estimated(float(value), samples, together)
