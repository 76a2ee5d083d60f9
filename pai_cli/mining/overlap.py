"""How much pairs of graphs share, and how much they would by chance at their own densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pai_cli.mining.collection import Collection

if TYPE_CHECKING:
    from pai_cli.files.tables import Record

LEFT_OUT = 1e-14
"""Probability, at most, that is cut from the distribution of one layer's overlap."""

ROUNDING = 1e-11
"""More than float64 can be wrong by in the sums of logarithms, over windows of 100,000, and in the convolutions."""

DIRECT = 2**22
"""Products up to which a convolution is made term by term; by Fourier transform it is quicker, and as good in the sum."""

ROWS = 2**20


@dataclass(frozen=True)
class Chance:
    """Of edges two graphs share when each has its own number in each group, drawn without regard to the other.

    `mean` and `deviation` are exact; `p`: how probable `shared` or more are, `error`: by how much that may be wrong.
    """

    mean: float
    deviation: float
    p: float
    error: float


@dataclass(frozen=True)
class Overlap:
    """A pair of graphs: edges of each, of both and of either, and what chance gives. `jaccard` is None without edges.

    `first` and `second`: their places from 0, and their `names`.
    """

    first: int
    second: int
    edges: tuple[int, int]
    shared: int
    chance: Chance
    names: tuple[str, str]

    def __repr__(self) -> str:
        return f"<Overlap of {self.names[0]} and {self.names[1]}: {self.shared:,} of {self.union:,} edges>"

    @property
    def union(self) -> int:
        """Edges that either has."""
        return self.edges[0] + self.edges[1] - self.shared

    @property
    def jaccard(self) -> float | None:
        """Share of the edges of either that both have, 0 to 1."""
        return self.shared / self.union if self.union else None

    @property
    def expected_jaccard(self) -> float | None:
        """The Jaccard index where both share as many edges as chance has them share in the mean."""
        union = sum(self.edges) - self.chance.mean
        return self.chance.mean / union if union else None

    @property
    def z(self) -> float | None:
        """Standard deviations above the mean; None where chance leaves nothing open."""
        return (self.shared - self.chance.mean) / self.chance.deviation if self.chance.deviation else None

    def to_dict(self) -> Record:
        """All of it, as the command line writes it."""
        return {
            "mask": self.names[0],
            "other_mask": self.names[1],
            "edges": self.edges[0],
            "other_edges": self.edges[1],
            "shared": self.shared,
            "jaccard": self.jaccard,
            "expected_shared": self.chance.mean,
            "expected_jaccard": self.expected_jaccard,
            "deviation": self.chance.deviation,
            "z": self.z,
            "p": self.chance.p,
            "p_error": self.chance.error,
        }


def shared_edges(collection: Collection) -> NDArray[np.int64]:
    """(groups, graphs, graphs): edges that two graphs share in each group; a graph's own number on the diagonal."""
    graphs = len(collection.names)
    table = np.zeros((len(collection.group_names), graphs, graphs), np.int64)
    bounds = np.searchsorted(collection.groups, np.arange(len(table) + 1))
    for group, (begin, end) in enumerate(pairwise(bounds.tolist())):
        for row in range(begin, end, ROWS):  # few enough that float32 counts are exact
            packed = collection.holders[row : min(row + ROWS, end)]
            flags = np.unpackbits(packed, axis=1, bitorder="little", count=graphs).astype(np.float32)
            table[group] += (flags.T @ flags).astype(np.int64)
    return table


def overlaps(collection: Collection) -> list[Overlap]:
    """Every pair of graphs, in order."""
    table = shared_edges(collection)
    found = []
    for first in range(table.shape[1]):
        for second in range(first + 1, table.shape[1]):
            kept = [(int(layer[first, first]), int(layer[second, second])) for layer in table]
            shared = int(table[:, first, second].sum())
            chance = chance_of(shared, collection.possible, kept)
            edges = (sum(a for a, _ in kept), sum(b for _, b in kept))
            names = collection.names[first], collection.names[second]
            found.append(Overlap(first, second, edges, shared, chance, names))
    return found


def chance_of(shared: int, possible: Sequence[int], kept: Sequence[tuple[int, int]]) -> Chance:
    """Whether `shared` edges are more than chance: a sum of hypergeometric variables, one a group, independent.

    In a group of `possible` edges of which the graphs have a and b, the shared ones are hypergeometric (N, a, b). Each
    distribution is cut where Bernstein's inequality leaves less than `LEFT_OUT` on either side (it holds for
    hypergeometric variables by Hoeffding 1963, section 6), and they are convolved.
    """
    mean = variance = 0.0
    total, lowest, cut = np.ones(1), 0, 0.0
    for size, (a, b) in zip(possible, kept, strict=True):
        if not a or not b:
            continue
        mean += a * b / size
        variance += a * b * (size - a) * (size - b) / (size**2 * (size - 1)) if size > 1 else 0.0
        first, masses = _distribution(size, max(a, b), min(a, b))
        total, lowest, cut = _convolved(total, masses), lowest + first, cut + 2 * LEFT_OUT
    p = float(total[max(0, shared - lowest) :].sum())
    return Chance(mean, math.sqrt(variance), min(1.0, max(0.0, p)), cut + ROUNDING)


@lru_cache(maxsize=4096)
def _distribution(size: int, marked: int, drawn: int) -> tuple[int, NDArray[np.float64]]:
    """The first value that is not cut off, and probabilities from there on."""
    share = marked / size
    mean, binomial = drawn * share, drawn * share * (1 - share)
    log = math.log(1 / LEFT_OUT)
    reach = log / 3 + math.sqrt(log * log / 9 + 2 * binomial * log)  # exp(-t^2 / (2 (v + t / 3))) is LEFT_OUT there
    first = max(0, drawn + marked - size, math.floor(mean - reach))
    last = min(drawn, math.ceil(mean + reach))
    # P(x + 1) / P(x), summed as logarithms: SciPy's own takes a second for the largest layers.
    x = np.arange(first, last, dtype=np.float64)
    steps = np.log((marked - x) * (drawn - x)) - np.log((x + 1) * (size - marked - drawn + x + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    masses: NDArray[np.float64] = np.exp(logs - logs.max())
    return first, masses / masses.sum()


def _convolved(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(some) * len(others) <= DIRECT:
        return np.convolve(some, others)
    from scipy.signal import fftconvolve

    found: NDArray[np.float64] = fftconvolve(some, others)
    return found
