"""The three correlations of many bootstrap samples at once.

A sample is drawn mask by mask, with replacement, within each stratum; it is held as how often each mask was drawn. The sums
over pairs that Kendall's tau needs are then quadratic forms in those counts, exact and with ties counted as they fall: a
mask drawn twice is tied with itself in both. In a large stratum the form is taken to first order around the counts 1, 1,
..., 1 (Hajek's projection), which at a thousand masks moves the ends of an interval by 1 or 2% of its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pai_cli.ranking.rules import RESAMPLES
from pai_cli.ranking.statistics import Floats, Ints, Sample, centred

LARGE_STRATUM = 1000  # masks, from which on the pairs are counted to first order
CHUNK = 2**21  # counts that are worked on at once
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


def resampled(samples: Sequence[Sample], counts: Counts) -> Floats:
    """tau, rho and r of each metric in each bootstrap sample, shape (metrics, 3, bootstrap samples); NaN where undefined.

    `samples`: metrics over the same masks, so with the same accuracies and strata. `counts`: of `draw`, shape (n, count).
    """
    found = np.empty((len(samples), 3, counts.shape[1]))
    if not samples:
        return found
    y = _in_units(centred(samples[0].y, samples[0].strata))
    xs = [_in_units(centred(sample.x, sample.strata)) for sample in samples]
    strata = [
        (
            at,
            _Side(samples[0].y_rank[at], y[at]),
            [_Side(s.x_rank[at], x[at]) for s, x in zip(samples, xs, strict=True)],
        )
        for at in samples[0].strata
        if len(at) > 1
    ]
    agreements = [[side.agreement(y_side) for side in sides] for _, y_side, sides in strata]
    columns = max(1, CHUNK // len(counts))
    for start in range(0, counts.shape[1], columns):
        chunk = slice(start, min(start + columns, counts.shape[1]))
        sums = np.zeros((len(samples), 3, 3, chunk.stop - chunk.start))
        for (at, y_side, sides), agreement in zip(strata, agreements, strict=True):
            drawn = _Drawn(counts[at, chunk], y_side)
            for k, side in enumerate(sides):
                sums[k] += drawn.sums(side, agreement[k])
        found[:, :, chunk] = _correlations(sums)
    return found


def _correlations(sums: Floats) -> Floats:
    """Of sums of shape (metrics, 3 correlations, 3 sums, samples)."""
    product, x, y = sums.transpose(2, 0, 1, 3)
    # Deviations of rounding size are those of a constant.
    defined = (x > ROUNDING) & (y > ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(defined, product / np.sqrt(x * y), np.nan)
    clipped: Floats = np.clip(found, -1.0, 1.0)
    return clipped


class _Side:
    """A metric or the accuracies in one stratum: their values, and their ranks sorted, so that ties stand together."""

    def __init__(self, ranks: Ints, values: Floats):
        self.ranks, self.values = ranks, values
        self._order = np.argsort(ranks, kind="stable")
        first = np.concatenate([[True], np.diff(ranks[self._order]) > 0])
        self._starts = np.flatnonzero(first)
        self.bins = np.empty(len(ranks), dtype=np.int64)
        self.bins[self._order] = np.cumsum(first) - 1

    def by_rank(self, rows: Floats) -> Floats:
        """Rows of masks, shape (n, samples), summed over masks of equal rank, in the order of ranks."""
        ordered = rows[self._order]
        if len(self._starts) == len(ordered):
            return ordered
        summed: Floats = np.add.reduceat(ordered, self._starts, axis=0)
        return summed

    def agreement(self, other: _Side) -> Floats | None:
        """For a large stratum, each mask's concordant less discordant pairs, shape (n,)."""
        if len(self.ranks) <= LARGE_STRATUM:
            return None
        rows = max(1, CHUNK // len(self.ranks))  # in blocks, as n x n numbers may be too many
        blocks = [
            _signs(self.ranks, other.ranks, slice(start, start + rows)).sum(axis=1, dtype=np.float64)
            for start in range(0, len(self.ranks), rows)
        ]
        return np.concatenate(blocks)


class _Drawn:
    """Bootstrap samples of one stratum, and what they make of its accuracies."""

    def __init__(self, counts: Counts, y: _Side):
        self._counts, self._y = counts, y
        self._w = counts.astype(np.float64)
        self._total = self._w.sum(axis=0)
        drawn = y.by_rank(self._w)
        middle = _middle(drawn, self._total)
        self._ranked = self._w * middle[y.bins]
        self._y_apart, self._y_ranks = _apart(drawn, self._total), _sum(drawn * middle, middle)
        self._y_mean, self._y_squares = self._moments(y.values)

    def sums(self, x: _Side, agreement: Floats | None) -> Floats:
        """Product, x and y of each of the three correlations, shape (3, 3, samples)."""
        drawn = x.by_rank(self._w)
        middle = _middle(drawn, self._total)
        ranks = _sum(middle, x.by_rank(self._ranked)), _sum(drawn * middle, middle), self._y_ranks
        mean, squares = self._moments(x.values)
        product = (x.values * self._y.values) @ self._w - self._total * mean * self._y_mean
        pairs = self._concordance(x, agreement), _apart(drawn, self._total), self._y_apart
        return np.array([pairs, ranks, (product, squares, self._y_squares)])

    def _moments(self, values: Floats) -> tuple[Floats, Floats]:
        """Mean, and sum of squared deviations; the values are centred already, so that little cancels."""
        mean = values @ self._w / np.maximum(self._total, 1.0)
        return mean, values**2 @ self._w - self._total * mean**2

    def _concordance(self, x: _Side, agreement: Floats | None) -> Floats:
        """Concordant less discordant pairs of each sample."""
        if agreement is None:
            products = (_signs(x.ranks, self._y.ranks, slice(None)) @ self._counts).astype(np.float64)
            return _sum(products, self._w) / 2
        # 1 - 1/n: the share of pairs of draws that are of two masks, as the exact form has it.
        first: Floats = (2 * (agreement @ self._w) - agreement.sum()) / 2 * (1 - 1 / len(agreement))
        return first


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


def _apart(drawn: Floats, total: Floats) -> Floats:
    """Pairs of draws that differ."""
    return (total**2 - _sum(drawn, drawn)) / 2


def _in_units(deviations: Floats) -> Floats:
    """In units of the largest, so that what is tiny beside it can be told from rounding."""
    return deviations / (float(np.abs(deviations).max(initial=0.0)) or 1.0)


def _signs(x: Ints, y: Ints, rows: slice) -> Counts:
    """1 for a concordant pair, -1 for a discordant, 0 for a tied; shape (rows, n). int8 until then: it is quick."""
    found: Counts = (_order(x, rows) * _order(y, rows)).astype(np.float32)
    return found


def _order(ranks: Ints, rows: slice) -> np.ndarray[Any, np.dtype[np.int8]]:
    own, others = ranks[rows, None], ranks[None, :]
    return (own > others).view(np.int8) - (own < others).view(np.int8)
