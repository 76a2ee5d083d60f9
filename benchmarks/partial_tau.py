"""Associations of masks of equal network and density, alone and given controls, with intervals over masks or kinds.

The statistics are those of `pai rank` (`pai_cli/ranking/partial.py`). Beside its partial tau stands Kendall's own (1942),
the same formula of the taus themselves, which is not 0 for what goes with accuracy through a control alone; and beside
intervals that draw masks, intervals that draw whole kinds of masks, each with all its masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pai_cli.ranking.bootstrap import Counts, draw, interval
from pai_cli.ranking.partial import Held, partial_correlations, partial_tau, partial_taus
from pai_cli.ranking.statistics import dense_ranks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 1000
KNOWN = 0.9
"""The share of bootstrap samples with a value, under which there is no interval."""


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


def estimated(value: float, samples: Floats, together: int) -> Estimate:
    """The percentile interval; and `firm` by the normal interval of atanh at 1 - 0.05 / together."""
    low, high = interval(samples, KNOWN)
    if not np.isfinite(value) or low is None or high is None:
        return Estimate(value, np.nan, np.nan, firm=False)
    limit = 1 - 1e-9
    spread = np.arctanh(np.clip(samples[np.isfinite(samples)], -limit, limit)).std(ddof=1)
    firm = abs(np.arctanh(np.clip(value, -limit, limit))) > NormalDist().inv_cdf(1 - 0.025 / together) * spread
    return Estimate(value, low, high, bool(firm))


@dataclass(frozen=True)
class Strata:
    """The masks of equal network and density, by their numbers, and bootstrap samples that draw masks or whole kinds."""

    strata: Ints
    masks: Counts
    kinds: Counts

    @classmethod
    def of(cls, strata: Ints, kinds: Ints, count: int = RESAMPLES, seed: int = 0) -> Strata:
        """With `count` samples of either sort."""
        every = np.arange(len(strata))
        masks = draw(_groups(strata), every, count, np.random.default_rng(seed))
        return cls(strata, masks, draw((every,), kinds, count, np.random.default_rng(seed + 1)))

    def association(
        self, variables: Sequence[Floats], *, normal: bool = True, by_kind: bool = False, together: int = 1
    ) -> Estimate:
        """How the first two go together given the others, over the masks where all have a value."""
        there = np.isfinite(variables).all(axis=0)
        if there.sum() < 3:
            return NONE
        x, y, *controls = (dense_ranks(one[there]) for one in variables)
        counts = (self.kinds if by_kind else self.masks)[there]
        held = Held(y, controls, _groups(self.strata[there]), counts, int(there.sum()))
        seen, drawn = (next(held.taus([x], each)) for each in (np.ones_like(counts[:, :1]), counts))
        if normal:
            return estimated(partial_tau(seen[0]), partial_taus(drawn), together)
        return estimated(float(partial_correlations(seen[0])), partial_correlations(drawn), together)


def _groups(numbers: Ints) -> tuple[Ints, ...]:
    return tuple(np.flatnonzero(numbers == number) for number in np.unique(numbers))
