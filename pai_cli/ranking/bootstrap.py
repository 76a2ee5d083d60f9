"""The three correlations of many bootstrap samples at once.

A sample is drawn mask by mask, with replacement, within each stratum; it is held as how often each mask was drawn. The sums
over pairs that Kendall's tau needs are then quadratic forms in those counts, exact and with ties counted as they fall: a
mask drawn twice is tied with itself in both. In a large stratum the form is taken to first order around the counts 1, 1,
..., 1 (Hajek's projection), whose error is of the order of 1/n of the interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pai_cli.ranking.rules import RESAMPLES
from pai_cli.ranking.statistics import Floats, Ints, Sample, centred

LARGE_STRATUM = 500  # masks, from which on the pairs are counted to first order
CHUNK = 2**22  # counts that are held at once

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
    """How often each mask is in each of `count` samples, shape (count, n).

    `clusters` (n,): entries of one number are one mask (seen in several settings) and are drawn together, in the stratum
    of the first of them.
    """
    taken = np.zeros((count, int(clusters.max(initial=-1)) + 1), dtype=np.float32)
    seen = np.zeros(taken.shape[1], dtype=bool)
    for at in strata:
        members = np.unique(clusters[at])
        members = members[~seen[members]]
        seen[members] = True
        if size := len(members):
            taken[:, members] = rng.multinomial(size, np.full(size, 1 / size), size=count)
    return taken[:, clusters]


class Forms:
    """What the correlations of every bootstrap sample of one metric take, worked out once."""

    def __init__(self, sample: Sample):
        x, y = (_in_units(centred(values, sample.strata)) for values in (sample.x, sample.y))
        self._parts = [_Stratum(sample, at, x[at], y[at]) for at in sample.strata if len(at) > 1]

    def of(self, counts: Counts) -> Floats:
        """tau, rho and r of each sample, shape (samples, 3); NaN where one is not defined."""
        sums = np.zeros((3, 3, len(counts)))
        for part in self._parts:
            sums += part.sums(counts)
        product, x, y = sums.transpose(1, 0, 2)
        # Deviations of rounding size are those of a constant.
        defined = (x > 1e-12) & (y > 1e-12)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(defined, product / np.sqrt(x * y), np.nan)
        clipped: Floats = np.clip(found, -1.0, 1.0).T
        return clipped


class _Stratum:
    """The sums of one stratum: product, x and y of each of the three correlations."""

    def __init__(self, sample: Sample, at: Ints, x: Floats, y: Floats):
        self._at, self._x_value, self._y_value = at, x, y
        self._x, self._y = _Bins(sample.x_rank[at]), _Bins(sample.y_rank[at])
        self._matrix: Counts | None = None
        if len(at) <= LARGE_STRATUM:
            self._matrix = _signs(sample.x_rank[at], sample.x_rank[at]) * _signs(sample.y_rank[at], sample.y_rank[at])
        else:
            self._agreement = _agreement(sample.x_rank[at], sample.y_rank[at])

    def sums(self, counts: Counts) -> Floats:
        """Shape (3 correlations, 3 sums, samples)."""
        drawn = counts[:, self._at]
        w = drawn.astype(np.float64)
        x, y = self._x.counted(w), self._y.counted(w)
        total = w.sum(axis=1)
        tau = self._concordance(drawn, w), _apart(x, total), _apart(y, total)
        x_rank, y_rank = self._x.centred_ranks(x, total), self._y.centred_ranks(y, total)
        rho = _products(w, x_rank, y_rank)
        r = _products(w, _moved(self._x_value, w, total), _moved(self._y_value, w, total))
        return np.array([tau, rho, r])

    def _concordance(self, drawn: Counts, w: Floats) -> Floats:
        """Concordant less discordant pairs of each sample."""
        if self._matrix is not None:
            exact: Floats = np.einsum("bn,bn->b", (drawn @ self._matrix).astype(np.float64), w) / 2
            return exact
        n = len(self._agreement)
        # 1 - 1/n: the share of pairs of draws that are of two masks, as the exact form has it.
        first: Floats = (2 * (w @ self._agreement) - self._agreement.sum()) / 2 * (1 - 1 / n)
        return first


class _Bins:
    """Masks sorted by rank, so that what is tied stands together."""

    def __init__(self, ranks: Ints):
        self._order = np.argsort(ranks, kind="stable")
        ordered = ranks[self._order]
        first = np.concatenate([[True], np.diff(ordered) > 0])
        self._starts = np.flatnonzero(first)
        self._bin = np.empty(len(ranks), dtype=np.int64)
        self._bin[self._order] = np.cumsum(first) - 1

    def counted(self, w: Floats) -> Floats:
        """How many draws each rank has, shape (samples, ranks)."""
        found: Floats = np.add.reduceat(w[:, self._order], self._starts, axis=1)
        return found

    def centred_ranks(self, counted: Floats, total: Floats) -> Floats:
        """Each mask's mean rank among the draws, less the mean of all, shape (samples, n)."""
        middle = np.cumsum(counted, axis=1) - counted / 2 - total[:, None] / 2
        each: Floats = middle[:, self._bin]
        return each


def _apart(counted: Floats, total: Floats) -> Floats:
    found: Floats = (total**2 - np.einsum("bk,bk->b", counted, counted)) / 2
    return found


def _products(w: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    weighted = w * x
    return (
        np.einsum("bn,bn->b", weighted, y),
        np.einsum("bn,bn->b", weighted, x),
        np.einsum("bn,bn,bn->b", w, y, y),
    )


def _moved(values: Floats, w: Floats, total: Floats) -> Floats:
    """Values less their mean over the draws, shape (samples, n)."""
    found: Floats = values[None, :] - (w @ values / np.maximum(total, 1.0))[:, None]
    return found


def _in_units(deviations: Floats) -> Floats:
    """In units of the largest, so that what is tiny beside it can be told from rounding."""
    return deviations / (float(np.abs(deviations).max(initial=0.0)) or 1.0)


def _signs(some: Ints, others: Ints) -> Counts:
    found: Counts = np.sign(some[:, None] - others[None, :]).astype(np.float32)
    return found


def _agreement(x: Ints, y: Ints) -> Floats:
    """Each mask's concordant less discordant pairs, shape (n,); in blocks, as n x n numbers may be too many."""
    rows = max(1, CHUNK // len(x))
    blocks = [
        (_signs(x[start : start + rows], x) * _signs(y[start : start + rows], y)).sum(axis=1, dtype=np.float64)
        for start in range(0, len(x), rows)
    ]
    return np.concatenate(blocks)
