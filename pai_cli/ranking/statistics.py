"""Correlations over pairs of masks that may be compared: those of one stratum, a group of equal density.

With one stratum these are Kendall's tau-b, Spearman's rho and Pearson's r. With several,

    tau = sum of S / sqrt(sum of U_x * sum of U_y)

over the strata, where S is concordant less discordant pairs and U_x the pairs that x tells apart (the seasonal test of
Hirsch and Slack 1984); rho and r correlate what is left of the ranks within each stratum, or of the values, after the
stratum's mean is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

LEVEL = 0.05  # a p above it says nothing
EXACT_PAIRS = 2000  # up to which the exact distribution of a pooled tau is worked out
PERMUTED_BELOW = 30  # masks under which the t distribution is no good stand-in for that of rho and r
PERMUTATIONS = 9999
PAIRS_AT_ONCE = 2**23  # of shuffled masks, compared at once


@dataclass(frozen=True)
class Sample:
    """A metric and the accuracies, each of shape (n,).

    `x`, `y`: the numbers; `x_rank`, `y_rank`: their dense ranks from 0, equal where they are tied; `strata`: the indices of
    each stratum's masks.
    """

    x: Floats
    y: Floats
    x_rank: Ints
    y_rank: Ints
    strata: tuple[Ints, ...]

    @property
    def size(self) -> int:
        """How many masks."""
        return len(self.x)


def dense_ranks(values: Floats, errors: Floats | None = None) -> Ints:
    """Ranks from 0 without gaps; values whose error bounds overlap are tied, and so is what such ties link."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    apart = np.diff(ordered) > 0
    if errors is not None:
        high = np.maximum.accumulate(ordered + errors[order])
        # The lowest bound of all that follow, not of the next alone: a wide bound may reach past its neighbour.
        low = np.minimum.accumulate((ordered - errors[order])[::-1])[::-1]
        apart = low[1:] > high[:-1]
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(apart)]) if len(values) else 0
    return ranks


def kendall(sample: Sample) -> float | None:
    """tau-b over the pairs within strata, -1 to 1; None where x or y tells no pair apart."""
    sums = np.zeros(3)
    for at in sample.strata:
        sums += _pair_counts(sample.x_rank[at], sample.y_rank[at])
    return _ratio(*sums.tolist())


def spearman(sample: Sample) -> float | None:
    """rho of ranks within strata, -1 to 1; None where x or y is constant in each."""
    x, y = centred_ranks(sample.x_rank, sample.strata), centred_ranks(sample.y_rank, sample.strata)
    return _ratio(float(x @ y), float(x @ x), float(y @ y))


def pearson(sample: Sample) -> float | None:
    """r of deviations from the strata's means, -1 to 1; None where x or y is constant in each."""
    x, y = centred(sample.x, sample.strata), centred(sample.y, sample.strata)
    return _ratio(float(x @ y), float(x @ x), float(y @ y))


def _ratio(product: float, x: float, y: float) -> float | None:
    if x <= 0 or y <= 0:
        return None
    return float(np.clip(product / math.sqrt(x * y), -1.0, 1.0))


def _pair_counts(x: Ints, y: Ints) -> tuple[float, float, float]:
    """S, U_x and U_y of one stratum."""
    u_x, u_y = _told_apart(x), _told_apart(y)
    if not u_x or not u_y:
        return 0.0, u_x, u_y
    return float(agreement(x, y).sum()) / 2, u_x, u_y


def agreement(x: Ints, y: Ints) -> Ints:
    """Each mask's concordant less discordant pairs with all others, shape (n,), of two rankings by ranks from 0."""
    order = np.argsort(x, kind="stable")
    sorted_y = y[order]
    before, until = (np.searchsorted(x[order], x, side=side) for side in ("left", "right"))
    below, upto = (np.searchsorted(np.sort(y), y, side=side) for side in ("left", "right"))
    lower_lower, lower_upto = _counted_below(sorted_y, before, y), _counted_below(sorted_y, before, y + 1)
    upto_lower, upto_upto = _counted_below(sorted_y, until, y), _counted_below(sorted_y, until, y + 1)
    discordant = (before - lower_upto) + (below - upto_lower)
    found: Ints = lower_lower + (len(x) - until - upto + upto_upto) - discordant
    return found


def _counted_below(values: Ints, ends: Ints, limits: Ints) -> Ints:
    """How many of the first `ends` values are below each limit: a wavelet matrix, bit by bit from the highest."""
    found = np.zeros(len(ends), dtype=np.int64)
    starts = np.zeros(len(ends), dtype=np.int64)
    for bit in reversed(range(int(limits.max(initial=0)).bit_length())):
        ones = (values >> bit) & 1
        zeros = np.concatenate([[0], np.cumsum(1 - ones)])
        high = (limits >> bit) & 1 == 1
        low_start, low_end = zeros[starts], zeros[ends]
        found += np.where(high, low_end - low_start, 0)
        starts = np.where(high, zeros[-1] + starts - low_start, low_start)
        ends = np.where(high, zeros[-1] + ends - low_end, low_end)
        values = values[np.argsort(ones, kind="stable")]
    return found


def _told_apart(ranks: Ints) -> float:
    counts = np.bincount(ranks) if len(ranks) else np.zeros(1)
    return float((len(ranks) ** 2 - (counts**2).sum()) / 2)


def centred_ranks(ranks: Ints, strata: Sequence[Ints]) -> Floats:
    """Ranks within each stratum, ties sharing their mean rank, less the stratum's mean."""
    from scipy.stats import rankdata

    found = np.zeros(len(ranks))
    for at in strata:
        found[at] = rankdata(ranks[at]) - (len(at) + 1) / 2
    return found


def centred(values: Floats, strata: Sequence[Ints]) -> Floats:
    """Values less their stratum's mean, in units of the largest; exactly 0 where a stratum's are all equal."""
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    found = np.zeros(len(values))
    for at in strata:
        if len(at) and (values[at] != values[at[0]]).any():
            found[at] = values[at] / scale - (values[at] / scale).mean()
    return found


# --- how likely by chance


def kendall_p(sample: Sample, orders: Ints | None = None, raised: float | None = None) -> tuple[float, str]:
    """Two-sided p of `kendall` without association, and how it was found: "exact", "permutation" or "normal".

    Exact where neither side has ties and the pairs are few; else by `orders`, of `shuffles`, where there are some; else
    normal, with the variance that ties leave: of few masks with ties that p is too small. `raised`: of `dependence`, where
    masks are in several strata, which rules out the exact form.
    """
    counts = [_pair_counts(sample.x_rank[at], sample.y_rank[at]) for at in sample.strata]
    pairs = [len(at) * (len(at) - 1) // 2 for at in sample.strata]
    total = sum(score for score, _, _ in counts)
    tied = any(u_x < count or u_y < count for (_, u_x, u_y), count in zip(counts, pairs, strict=True))
    if raised is None and not tied and sum(pairs) <= EXACT_PAIRS:
        return _exact_p(total, [len(at) for at in sample.strata]), "exact"
    if orders is not None:
        return kendall_permutation_p(sample, orders), "permutation"
    variance = sum(_variance(sample.x_rank[at], sample.y_rank[at]) for at in sample.strata)
    return _normal_p(total, variance * (raised or 1.0)), "normal"


def _normal_p(score: float, variance: float) -> float:
    return math.erfc(abs(score) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _exact_p(score: float, sizes: Sequence[int]) -> float:
    """The share of all orders within strata whose S is at least as far from 0."""
    shares = np.ones(1)  # [k]: share of orders with k inversions
    for size in sizes:
        for place in range(2, size + 1):
            shares = np.convolve(shares, np.full(place, 1 / place))
    scores = len(shares) - 1 - 2 * np.arange(len(shares))
    return float(min(1.0, shares[np.abs(scores) >= abs(score)].sum()))


def _variance(x: Ints, y: Ints) -> float:
    """The variance of S in one stratum when there is no association (Kendall, Rank Correlation Methods, chapter 5)."""
    n = len(x)
    if n < 2:
        return 0.0
    t, u = (np.unique(ranks, return_counts=True)[1].astype(np.float64) for ranks in (x, y))

    def cubic(c: Any) -> float:
        return float(np.sum(c * (c - 1) * (2 * c + 5)))

    found = (cubic(np.array([float(n)])) - cubic(t) - cubic(u)) / 18
    found += float(np.sum(t * (t - 1)) * np.sum(u * (u - 1))) / (2 * n * (n - 1))
    if n > 2:
        both = float(np.sum(t * (t - 1) * (t - 2)) * np.sum(u * (u - 1) * (u - 2)))
        found += both / (9 * n * (n - 1) * (n - 2))
    return found


def t_p(value: float, size: int, strata: int) -> float:
    """Two-sided p of a rho or r over `size` masks whose `strata` means were taken away, by the t distribution."""
    freedom = size - strata - 1
    if freedom < 1 or abs(value) >= 1:
        return 1.0 if freedom < 1 else 0.0
    return t_of(value * math.sqrt(freedom / (1 - value**2)), freedom)


def t_of(ratio: float, freedom: int) -> float:
    """Two-sided p of a value over its standard error, by the t distribution."""
    from scipy.stats import t

    return float(2 * t.sf(abs(ratio), freedom))


def exchangeable(strata: Sequence[Ints], clusters: Ints) -> list[Ints]:
    """Masks that could have had each other's accuracies: those of the same strata, by arrays of shape (masks, strata).

    `clusters` (n,): equal for entries that are one mask, seen in several strata; a row has its entries, whose accuracies
    stay together, as they depend on each other.
    """
    entries: dict[int, list[tuple[int, int]]] = {}
    for number, at in enumerate(strata):
        for entry, cluster in zip(at.tolist(), clusters[at].tolist(), strict=True):
            entries.setdefault(cluster, []).append((number, entry))
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for own in entries.values():
        groups.setdefault(tuple(number for number, _ in own), []).append([entry for _, entry in own])
    return [np.array(group) for group in groups.values()]


def shuffles(groups: Sequence[Ints], size: int, rng: np.random.Generator) -> Ints:
    """`PERMUTATIONS` orders of the masks, each shuffled within `exchangeable` groups; shape (PERMUTATIONS, size)."""
    orders = np.tile(np.arange(size), (PERMUTATIONS, 1))
    for group in groups:
        moved = np.argsort(rng.random((PERMUTATIONS, len(group))), axis=1)
        for entries in group.T:
            orders[:, entries] = entries[moved]
    return orders


def kendall_permutation_p(sample: Sample, orders: Ints) -> float:
    """Two-sided p of `kendall`: the share of shuffles, the one seen included, in which S is as far from 0 or farther."""
    at = [stratum[np.array(np.triu_indices(len(stratum), 1))] for stratum in sample.strata]
    one, other = np.concatenate(at, axis=1)
    x = np.sign(sample.x_rank[one] - sample.x_rank[other]).astype(np.float32)
    told = np.flatnonzero(x)
    one, other, x = one[told], other[told], x[told]
    y = sample.y_rank.astype(np.int32)
    seen = abs(float(x @ np.sign(y[one] - y[other])))
    strong, rows = 0, max(1, PAIRS_AT_ONCE // max(1, len(x)))
    for start in range(0, len(orders), rows):
        moved = y[orders[start : start + rows]]
        scores = np.sign(moved[:, one] - moved[:, other]).astype(np.float32) @ x
        strong += int(np.count_nonzero(np.abs(scores) >= seen))
    return (1 + strong) / (len(orders) + 1)


def permutation_p(x: Floats, y: Floats, orders: Ints) -> float:
    """Two-sided p of the correlation of centred x and y: the share of shuffles, the one seen included, as strong or more."""
    found = abs(float(x @ y))
    strong = np.abs(y[orders] @ x) >= found * (1 - 1e-9)
    return float((1 + np.count_nonzero(strong)) / (len(orders) + 1))


def product_p(x: Floats, y: Floats, strata: Sequence[Ints], raised: float) -> float:
    """Two-sided p of the correlation of centred x and y by the normal distribution, with the variance of all orders within
    strata times `raised`, of `dependence`.
    """
    return _normal_p(float(x @ y), raised * sum(_product_variance(x[at], y[at]) for at in strata))


def dependence(x: Floats, y: Floats, strata: Sequence[Ints], groups: Sequence[Ints]) -> float:
    """By what factor masks in several strata raise the variance of the product of centred x and y, 1 or more.

    Strata that share masks do not vary apart: their covariance over all orders of the shared masks is added, as Hirsch and
    Slack (1984) add that of seasons. `groups`: of `exchangeable`.
    """
    number = np.zeros(len(x), dtype=np.int64)
    for k, at in enumerate(strata):
        number[at] = k
    sums: dict[tuple[int, int], Floats] = {}
    for group in groups:
        for one, other in combinations(group.T, 2):
            shared = np.array([x[one] @ x[other], y[one] @ y[other], len(group)])
            at_both = int(number[one[0]]), int(number[other[0]])
            sums[at_both] = sums.get(at_both, np.zeros(3)) + shared
    together = sum(float(of_x * of_y / (count - 1)) for of_x, of_y, count in sums.values() if count > 1)
    apart = sum(_product_variance(x[at], y[at]) for at in strata)
    return max(1.0, 1 + 2 * together / apart) if apart > 0 else 1.0


def _product_variance(x: Floats, y: Floats) -> float:
    """Of x @ y over all orders of y, both centred."""
    return float((x @ x) * (y @ y) / (len(x) - 1)) if len(x) > 1 else 0.0


def holm(found: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for how many there are (Holm 1979), in the order given; those missing are not counted."""
    order = sorted((p, at) for at, p in enumerate(found) if p is not None)
    corrected: list[float | None] = [None] * len(found)
    largest = 0.0
    for place, (p, at) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p))
        corrected[at] = largest
    return corrected


def smallest_p(y_rank: Ints, groups: Sequence[Ints]) -> float:
    """The smallest two-sided p that any tau against these accuracies can have: 2 in the number of their orders.

    `groups`: of `exchangeable`.
    """
    logarithm = math.log(2)
    for group in groups:
        ties = np.unique(y_rank[group], axis=0, return_counts=True)[1]
        logarithm += sum(math.lgamma(count + 1) for count in ties.tolist()) - math.lgamma(len(group) + 1)
    return min(1.0, math.exp(logarithm))
