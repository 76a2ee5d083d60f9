"""The three correlations of many bootstrap samples at once.

A sample is drawn mask by mask, with replacement, within each stratum; it is held as how often each mask was drawn. The sums
over pairs that Kendall's tau needs are then quadratic forms in those counts, exact and with ties counted as they fall: a
mask drawn twice is tied with itself in both. In a large stratum the form is taken to first order around the counts 1, 1,
..., 1 (Hajek's projection), which at 200 masks moves the ends of an interval by 1% of its width; so are the mean ranks of
Spearman's rho from 1,000 masks on, by 3% there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pai_cli.ranking.rules import RESAMPLES
from pai_cli.ranking.statistics import Floats, Ints, Sample, agreement, centred

LARGE_STRATUM = 200  # masks, above which pairs are counted to first order
LARGE_RANKED = 1000  # and above which mean ranks are
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
    values = [_in_units(centred(one, strata)) for one in (samples[0].y, *(sample.x for sample in samples))]
    sums = np.zeros((2, 3, len(samples), counts.shape[1]))
    for at in strata:
        rankings = [_Ranking(one[at]) for one in (samples[0].y_rank, *(sample.x_rank for sample in samples))]
        ranks = _LargeRanks(rankings) if len(at) > LARGE_RANKED else _Ranks(rankings)
        moments = _Moments(np.array([one[at] for one in values]))
        for chunk in _chunks(counts[at]):
            w = counts[at, chunk].astype(np.float64)
            sums[0, :, :, chunk] += ranks.sums(w)
            sums[1, :, :, chunk] += moments.sums(w)
    for k in range(2):
        found[:, k + 1] = _ratios(*sums[k])
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

    def middle(self) -> Floats:
        """The mean rank that each shares with what it is tied with, less the mean of all, shape (n,)."""
        counts = np.bincount(self.bins)
        found: Floats = (np.cumsum(counts) - counts / 2 - len(self.ranks) / 2)[self.bins]
        return found

    def pull(self, values: Floats) -> Floats:
        """The sum of the values of masks that are above each, less that of those below, shape (n,)."""
        sums = np.bincount(self.bins, weights=values)
        below = np.cumsum(sums)
        found: Floats = (sums.sum() - below - (below - sums))[self.bins]
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


class _Ranks:
    """What Spearman's rho of each other ranking with the first needs of bootstrap samples of one stratum."""

    def __init__(self, rankings: Sequence[_Ranking]):
        self._y, *self._xs = rankings

    def sums(self, w: Floats) -> Floats:
        """Product, x and y, shape (3, rankings less one, samples)."""
        total = w.sum(axis=0)
        drawn = self._y.by_rank(w)
        middle = _middle(drawn, total)
        ranked, squares = w * middle[self._y.bins], _sum(drawn * middle, middle)
        found = np.empty((3, len(self._xs), w.shape[1]))
        for k, x in enumerate(self._xs):
            drawn = x.by_rank(w)
            middle = _middle(drawn, total)
            found[:, k] = _sum(middle, x.by_rank(ranked)), _sum(drawn * middle, middle), squares
        return found


class _LargeRanks:
    """The same to first order. A sum of products is a cubic form in the counts: its value is a third of its slopes' sum."""

    def __init__(self, rankings: Sequence[_Ranking]):
        y, *xs = rankings
        pairs = [*((x, y) for x in xs), *((x, x) for x in xs), (y, y)]
        self._slopes = np.array([_slopes(*pair) for pair in pairs])

    def sums(self, w: Floats) -> Floats:
        """Product, x and y, shape (3, rankings less one, samples)."""
        found = self._slopes @ w - 2 / 3 * self._slopes.sum(axis=1)[:, None]
        size = len(found) // 2
        return np.array([found[:size], found[size:-1], np.broadcast_to(found[-1], (size, w.shape[1]))])


def _slopes(x: _Ranking, y: _Ranking) -> Floats:
    """How the sum of products of centred mean ranks grows with each mask's count, shape (n,)."""
    pulled: Floats = (x.pull(y.middle()) + y.pull(x.middle())) / 2
    return x.middle() * y.middle() + pulled


class _Moments:
    """What Pearson's r of each other row with the first needs; values are centred, so that little cancels."""

    def __init__(self, values: Floats):
        self._values, self._squares = values, values**2
        self._products = values[1:] * values[0]

    def sums(self, w: Floats) -> Floats:
        """Product, x and y, shape (3, rows less one, samples)."""
        total = w.sum(axis=0)
        means = self._values @ w / np.maximum(total, 1.0)
        squares = self._squares @ w - total * means**2
        products = self._products @ w - total * means[1:] * means[0]
        return np.array([products, squares[1:], np.broadcast_to(squares[0], products.shape)])


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
