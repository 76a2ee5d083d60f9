"""The three correlations of many bootstrap samples at once.

A sample is drawn mask by mask, with replacement, within each stratum; it is held as how often each mask was drawn. The sums
over pairs that Kendall's tau needs are then quadratic forms in those counts, exact and with ties counted as they fall: a
mask drawn twice is tied with itself in both. In a large stratum the form is taken to first order around the counts 1, 1,
..., 1 (Hajek's projection), which at 200 masks moves the ends of an interval by 1% of its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pai_cli.ranking.rules import RESAMPLES
from pai_cli.ranking.statistics import Floats, Ints, Sample, agreement, centred

LARGE_STRATUM = 200  # masks, above which pairs are counted to first order
CHUNK = 2**21  # counts that are worked on at once
INTERVAL = (2.5, 97.5)  # percentiles of the bootstrap samples
ROUNDING = 1e-12  # sums of squares, in units of the largest deviation, that may be rounding

Counts = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Resampling:
    """`count` bootstrap samples from `seed`; `stream` tells apart the draws of one seed."""

    count: int = RESAMPLES
    seed: int = 0
    stream: int = 0

    def generator(self, purpose: int) -> np.random.Generator:
        """The random numbers of one purpose."""
        return np.random.default_rng([self.seed, self.stream, purpose])


def draw(strata: tuple[Ints, ...], clusters: Ints, count: int, rng: np.random.Generator) -> Counts:
    """How often each mask is in each of `count` samples, shape (n, count).

    `clusters` (n,): entries of one number are one mask (seen in several settings) and are drawn together, in the stratum
    of the first of them.
    """
    taken = np.zeros((int(clusters.max(initial=-1)) + 1, count), dtype=np.float32)
    seen = np.zeros(len(taken), dtype=bool)
    for at in strata:
        members = np.unique(clusters[at])
        members = members[~seen[members]]
        seen[members] = True
        if len(members):
            _drawn_into(taken, members, rng)
    return taken[clusters]


def _drawn_into(taken: Counts, members: Ints, rng: np.random.Generator) -> None:
    """Count, for each sample, as many draws of the members as there are members."""
    size = len(members)
    columns = max(1, CHUNK // size)
    for start in range(0, taken.shape[1], columns):
        width = min(columns, taken.shape[1] - start)
        draws = rng.integers(size, size=(width, size)) + size * np.arange(width)[:, None]
        counted = np.bincount(draws.ravel(), minlength=size * width).reshape(width, size)
        taken[members, start : start + width] = counted.T


def interval(samples: Floats, known: float = 0.5) -> tuple[float | None, float | None]:
    """The 95% interval of the samples in which a statistic is defined, if their share is at least `known`."""
    defined = samples[~np.isnan(samples)]
    if len(defined) < max(1.0, known * len(samples)):
        return None, None
    low, high = np.percentile(defined, INTERVAL)
    return float(low), float(high)


def resampled(samples: Sequence[Sample], counts: Counts) -> Floats:
    """tau, rho and r of each metric in each bootstrap sample, shape (metrics, 3, bootstrap samples); NaN where undefined.

    `samples`: metrics over the same masks, so with the same accuracies and strata. `counts`: of `draw`, shape (n, count).
    """
    found = np.empty((len(samples), 3, counts.shape[1]))
    if not samples:
        return found
    strata, pairs = samples[0].strata, [(0, k) for k in range(1, len(samples) + 1)]
    found[:, 0] = resampled_taus([samples[0].y_rank, *(one.x_rank for one in samples)], pairs, strata, counts)
    y = _in_units(centred(samples[0].y, strata))
    xs = [_in_units(centred(sample.x, strata)) for sample in samples]
    parts = [
        (
            at,
            _Side(samples[0].y_rank[at], y[at]),
            [_Side(s.x_rank[at], x[at]) for s, x in zip(samples, xs, strict=True)],
        )
        for at in strata
        if len(at) > 1
    ]
    for chunk in _chunks(counts):
        sums = np.zeros((len(samples), 2, 3, chunk.stop - chunk.start))
        for at, y_side, sides in parts:
            drawn = _Drawn(counts[at, chunk], y_side)
            for k, side in enumerate(sides):
                sums[k] += drawn.sums(side)
        found[:, 1:, chunk] = _ratios(*sums.transpose(2, 0, 1, 3))
    return found


def resampled_taus(
    ranks: Sequence[Ints], pairs: Sequence[tuple[int, int]], strata: Sequence[Ints], counts: Counts
) -> Floats:
    """tau of each pair of rankings in each bootstrap sample, shape (pairs, bootstrap samples); NaN where undefined.

    `ranks`: dense, of all masks; `pairs`: of their numbers.
    """
    scores = np.zeros((len(pairs), counts.shape[1]))
    apart = np.zeros((len(ranks), counts.shape[1]))
    for at in strata:
        own = [_Ranking(one[at]) for one in ranks]
        of_pairs = _Large(own, pairs) if len(at) > LARGE_STRATUM else _Exact(own, pairs)
        for chunk in _chunks(counts[at]):
            drawn = of_pairs.sums(counts[at, chunk])
            scores[:, chunk] += drawn[0]
            apart[:, chunk] += drawn[1]
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return _ratios(scores, apart[one], apart[other])


def _chunks(counts: Counts) -> Iterator[slice]:
    """Of bootstrap samples, as many as are worked on at once."""
    columns = max(1, CHUNK // max(1, len(counts)))
    for start in range(0, counts.shape[1], columns):
        yield slice(start, min(start + columns, counts.shape[1]))


def _ratios(product: Floats, x: Floats, y: Floats) -> Floats:
    """Correlations of their three sums."""
    # Deviations of rounding size are those of a constant.
    defined = (x > ROUNDING) & (y > ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(defined, product / np.sqrt(x * y), np.nan)
    clipped: Floats = np.clip(found, -1.0, 1.0)
    return clipped


class _Ranking:
    """The ranks of one stratum, sorted, so that ties stand together."""

    def __init__(self, ranks: Ints):
        from scipy.sparse import csr_array

        self.ranks = ranks
        self._order = np.argsort(ranks, kind="stable")
        first = np.concatenate([[True], np.diff(ranks[self._order]) > 0])
        ends = np.append(np.flatnonzero(first), len(ranks))
        # Adds the rows of each rank; a sparse product is several times quicker at it than np.add.reduceat.
        self._adding = csr_array((np.ones(len(ranks)), self._order, ends), shape=(len(ends) - 1, len(ranks)))
        self.bins = np.empty(len(ranks), dtype=np.int64)
        self.bins[self._order] = np.cumsum(first) - 1

    def by_rank(self, rows: Floats) -> Floats:
        """Rows of masks, shape (n, samples), summed over masks of equal rank, in the order of ranks."""
        if self._adding.shape[0] == len(rows):
            return rows[self._order]
        summed: Floats = self._adding @ rows
        return summed

    def signs(self) -> Counts:
        """1 where the first of two masks is above the second, -1 where it is below, else 0; shape (n, n)."""
        found: Counts = np.sign(self.ranks[:, None] - self.ranks).astype(np.float32)
        return found

    def apart(self) -> Floats:
        """From how many masks each differs, shape (n,)."""
        found: Floats = len(self.ranks) - np.bincount(self.bins)[self.bins].astype(np.float64)
        return found


class _Exact:
    """Concordant less discordant pairs, and pairs that differ, of bootstrap samples of one stratum: quadratic forms."""

    def __init__(self, rankings: Sequence[_Ranking], pairs: Sequence[tuple[int, int]]):
        self._rankings, self._pairs = rankings, pairs

    def sums(self, counts: Counts) -> tuple[Floats, Floats]:
        """Shapes (pairs, samples) and (rankings, samples)."""
        w = counts.astype(np.float64)
        products = (self._rankings[i].signs() * self._rankings[j].signs() @ counts for i, j in self._pairs)
        scores = [_sum(each.astype(np.float64), w) / 2 for each in products]
        total = w.sum(axis=0)
        apart = [(total**2 - _sum(drawn, drawn)) / 2 for drawn in (one.by_rank(w) for one in self._rankings)]
        return np.array(scores).reshape(len(scores), w.shape[1]), np.array(apart)


class _Large:
    """The same to first order, as linear forms. Both lack the share of pairs of draws that are of one mask, 1/n."""

    def __init__(self, rankings: Sequence[_Ranking], pairs: Sequence[tuple[int, int]]):
        share = 1 - 1 / len(rankings[0].ranks)
        agreements = [agreement(rankings[i].bins, rankings[j].bins) for i, j in pairs]
        self._scores = share * np.array(agreements).reshape(len(pairs), len(rankings[0].ranks))
        self._apart = share * np.array([one.apart() for one in rankings])

    def sums(self, counts: Counts) -> tuple[Floats, Floats]:
        """Shapes (pairs, samples) and (rankings, samples)."""
        w = counts - 0.5
        return self._scores @ w, self._apart @ w


class _Side(_Ranking):
    """A metric or the accuracies in one stratum: their ranks and, centred, their values."""

    def __init__(self, ranks: Ints, values: Floats):
        super().__init__(ranks)
        self.values = values


class _Drawn:
    """Bootstrap samples of one stratum, and what they make of its accuracies."""

    def __init__(self, counts: Counts, y: _Side):
        self._y = y
        self._w = counts.astype(np.float64)
        self._total = self._w.sum(axis=0)
        drawn = y.by_rank(self._w)
        middle = _middle(drawn, self._total)
        self._ranked = self._w * middle[y.bins]
        self._y_ranks = _sum(drawn * middle, middle)
        self._y_mean, self._y_squares = self._moments(y.values)

    def sums(self, x: _Side) -> Floats:
        """Product, x and y of rho and of r, shape (2, 3, samples)."""
        drawn = x.by_rank(self._w)
        middle = _middle(drawn, self._total)
        ranks = _sum(middle, x.by_rank(self._ranked)), _sum(drawn * middle, middle), self._y_ranks
        mean, squares = self._moments(x.values)
        product = (x.values * self._y.values) @ self._w - self._total * mean * self._y_mean
        return np.array([ranks, (product, squares, self._y_squares)])

    def _moments(self, values: Floats) -> tuple[Floats, Floats]:
        """Mean, and sum of squared deviations; the values are centred already, so that little cancels."""
        mean = values @ self._w / np.maximum(self._total, 1.0)
        return mean, values**2 @ self._w - self._total * mean**2


def _middle(drawn: Floats, total: Floats) -> Floats:
    """The mean rank that the draws of each rank share, less the mean of all, shape (ranks, samples)."""
    found: Floats = np.cumsum(drawn, axis=0)
    found -= drawn / 2
    found -= total / 2
    return found


def _sum(a: Floats, b: Floats) -> Floats:
    """Of products, over masks."""
    found: Floats = np.einsum("nb,nb->b", a, b)
    return found


def _in_units(deviations: Floats) -> Floats:
    """In units of the largest, so that what is tiny beside it can be told from rounding."""
    return deviations / (float(np.abs(deviations).max(initial=0.0)) or 1.0)
