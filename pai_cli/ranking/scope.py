"""The correlations of one scope: every metric's alone, then corrected for their number and compared with the strongest."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pai_cli.ranking.bootstrap import Counts, Resampling, draw, resampled
from pai_cli.ranking.correlation import Correlation, Scope, Statistic
from pai_cli.ranking.statistics import (
    LEVEL,
    PERMUTED_BELOW,
    Floats,
    Ints,
    Sample,
    centred,
    centred_ranks,
    dense_ranks,
    dependence,
    exchangeable,
    holm,
    kendall,
    kendall_p,
    pearson,
    permutation_p,
    product_p,
    shuffles,
    smallest_p,
    spearman,
    t_p,
)

INTERVAL = (2.5, 97.5)  # percentiles of the bootstrap samples
DECIMALS = 12  # of an accuracy: what is beyond is rounding of its mean
PERFECT = "a perfect order: every sample of it is one too, which is no interval"
SELDOM = "most bootstrap samples have no two masks that differ: no interval"
ABSENT = "not compared with the strongest: has no value for too many of the masks"
CONSTANT = "not compared with the strongest: has one value for all the masks that are compared"
COMMON = 0.8  # share of the masks that metrics are compared over at least
DRAWS, SHUFFLES = 0, 1  # purposes of random numbers


@dataclass(frozen=True)
class Scoped:
    """A scope's metrics and masks as arrays.

    `values`, `errors`: shape (metrics, masks), NaN where a value is missing; `accuracy`: (masks,); `strata`: the indices of
    each group that compares; `clusters`: (masks,), equal for entries that are one mask.
    """

    scope: Scope
    names: tuple[str, ...]
    values: Floats
    errors: Floats
    accuracy: Floats
    strata: tuple[Ints, ...]
    clusters: Ints


@dataclass(frozen=True)
class _Part:
    """Some of the entries, `kept`, and what metrics that have values for them share.

    `groups`: of `exchangeable`; `too_few`: why they say nothing.
    """

    kept: Ints
    strata: tuple[Ints, ...]
    y: Floats
    y_rank: Ints
    groups: list[Ints]
    too_few: str | None

    @property
    def masks(self) -> int:
        """How many: fewer than entries where one is in several settings."""
        return sum(len(group) for group in self.groups)

    @property
    def repeated(self) -> bool:
        """Whether a mask is in several settings, so that its entries depend on each other."""
        return self.masks < len(self.y)


def correlate_within(scoped: Scoped, how: Resampling) -> list[Correlation]:
    """A correlation a metric, in the order of `names`."""
    counts = draw(scoped.strata, scoped.clusters, how.count, how.generator(DRAWS))
    found: dict[int, Correlation] = {}
    taus: dict[int, Floats] = {}
    for rows in _alike(scoped.values):
        part = _part(scoped, np.isfinite(scoped.values[rows[0]]))
        few = 2 < part.masks < PERMUTED_BELOW
        orders = shuffles(part.groups, len(part.y), how.generator(SHUFFLES)) if few else None
        own = {row: _sample(scoped, part, row) for row in rows}
        for row, sample in own.items():
            found[row] = _one(scoped, part, row, sample, orders)
        resampling = [row for row in rows if found[row].tau.value is not None and part.too_few is None]
        samples = resampled([own[row] for row in resampling], counts[part.kept])
        for row, each in zip(resampling, samples, strict=True):
            found[row] = _with_intervals(found[row], each)
            taus[row] = each[0]
    return _compared(_corrected([found[row] for row in range(len(scoped.names))]), taus, scoped, counts)


def _alike(values: Floats) -> list[list[int]]:
    """Rows grouped by where they have values."""
    groups: dict[bytes, list[int]] = {}
    for row, present in enumerate(np.isfinite(values)):
        groups.setdefault(present.tobytes(), []).append(row)
    return list(groups.values())


def _part(scoped: Scoped, present: np.ndarray) -> _Part:
    place = np.cumsum(present) - 1
    strata = tuple(place[at[present[at]]] for at in scoped.strata if present[at].any())
    y = np.round(scoped.accuracy[present], DECIMALS)
    y_rank = dense_ranks(y)
    groups = exchangeable(strata, scoped.clusters[present])
    return _Part(np.flatnonzero(present), strata, y, y_rank, groups, _too_few(y_rank, groups, len(scoped.names)))


def _sample(scoped: Scoped, part: _Part, row: int) -> Sample:
    x, errors = scoped.values[row, part.kept], scoped.errors[row, part.kept]
    return Sample(x, part.y, dense_ranks(x, errors), part.y_rank, part.strata)


def _too_few(y_rank: Ints, groups: Sequence[Ints], metrics: int) -> str | None:
    """Why nothing can be said, if so: not even a perfect order would be told from chance, among that many metrics."""
    smallest = smallest_p(y_rank, groups)
    corrected = min(1.0, smallest * metrics)
    if corrected <= LEVEL:
        return None
    count = sum(map(len, groups))
    tried = f", {corrected:.2g} after correction for {metrics} metrics" if metrics > 1 else ""
    told = f"too few masks to say anything: with {count} the smallest possible p of tau is {smallest:.2g}{tried}"
    if len(groups) > 1 or len(np.unique(y_rank)) < len(y_rank):
        return told
    needed = next(n for n in range(2, 200) if 2 / math.factorial(n) * metrics <= LEVEL)
    return f"{told}; it takes {needed}"


def _one(scoped: Scoped, part: _Part, row: int, sample: Sample, orders: Ints | None) -> Correlation:
    """One metric's correlation, without intervals and corrections."""
    values = (kendall(sample), spearman(sample), pearson(sample))
    tau, rho, r = (Statistic(value) for value in values)
    blank = Correlation(scoped.names[row], scoped.scope, sample.size, tau, rho, r)
    if values[0] is None:
        return replace(blank, reason=_undefined(sample))
    tests = _tests(sample, values, part, orders)
    statistics = [replace(Statistic(value), p=p, test=test) for value, (p, test) in zip(values, tests, strict=True)]
    return _with(replace(blank, reason=part.too_few), statistics)


def _with_intervals(one: Correlation, samples: Floats) -> Correlation:
    """`samples`: shape (3, samples)."""
    statistics = [_with_interval(*each) for each in zip((one.tau, one.rho, one.r), samples, strict=True)]
    if statistics[0].low is not None:
        return _with(one, statistics)
    return _with(replace(one, reason=PERFECT if _perfect(one.tau.value) else SELDOM), statistics)


def _with(correlation: Correlation, statistics: Sequence[Statistic]) -> Correlation:
    tau, rho, r = statistics
    return replace(correlation, tau=tau, rho=rho, r=r)


def _undefined(sample: Sample) -> str:
    if sample.size < 2:
        return f"{sample.size} mask{'s' * (sample.size != 1)} with a value: a correlation takes two"
    if all(len(at) < 2 for at in sample.strata):
        return "no two masks of equal density"
    constant = all((sample.y_rank[at] == sample.y_rank[at[0]]).all() for at in sample.strata)
    return "the accuracies compared are all equal" if constant else "the metric's values compared are all equal"


def _tests(
    sample: Sample, values: Sequence[float | None], part: _Part, orders: Ints | None
) -> list[tuple[float | None, str | None]]:
    """p and how it was found, of tau, rho and r."""
    ranks = [centred_ranks(rank, sample.strata) for rank in (sample.x_rank, sample.y_rank)]
    deviations = [centred(value, sample.strata) for value in (sample.x, sample.y)]
    raised = [dependence(x, y, sample.strata, part.groups) for x, y in (ranks, deviations)] if part.repeated else None
    found: list[tuple[float | None, str | None]] = [kendall_p(sample, orders, None if raised is None else raised[0])]
    for k, (value, (x, y)) in enumerate(zip(values[1:], (ranks, deviations), strict=True)):
        if value is None:
            found.append((None, None))
        elif orders is not None:
            found.append((permutation_p(x, y, orders), "permutation"))
        elif raised is not None:
            found.append((product_p(x, y, sample.strata, raised[k]), "normal"))
        else:
            found.append((t_p(value, sample.size, len(sample.strata)), "t"))
    return found


def _with_interval(statistic: Statistic, samples: Floats) -> Statistic:
    """With its interval; what is perfect is so in every sample, which would look like certainty."""
    if statistic.value is None or _perfect(statistic.value):
        return statistic
    low, high = _interval(samples)
    return replace(statistic, low=low, high=high)


def _perfect(value: float | None) -> bool:
    return abs(value or 0.0) > 1 - 1e-12


def _interval(samples: Floats) -> tuple[float | None, float | None]:
    """The 95% interval of the samples in which the statistic is defined, if they are most of them."""
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples) or not len(defined):
        return None, None
    low, high = np.percentile(defined, INTERVAL)
    return float(low), float(high)


# --- the metrics of a scope together


def _corrected(found: Sequence[Correlation]) -> list[Correlation]:
    columns = [[(one.tau, one.rho, one.r)[k] for one in found] for k in range(3)]
    corrected = [
        [replace(one, p_holm=p) for one, p in zip(column, holm([statistic.p for statistic in column]), strict=True)]
        for column in columns
    ]
    return [_with(one, statistics) for one, statistics in zip(found, zip(*corrected, strict=True), strict=True)]


def _compared(found: list[Correlation], taus: dict[int, Floats], scoped: Scoped, counts: Counts) -> list[Correlation]:
    """With each metric's share of samples in which it is the strongest, and how far it is behind the strongest.

    Strength is tau in the direction that it has over the masks that are compared: those with a value of every metric that
    takes part. `taus`: the samples over a metric's own masks.
    """
    rows, common = _rivals(scoped.values, list(taus))
    part = _part(scoped, common) if rows else None
    if part is None or part.too_few:
        return found
    own = {row: _sample(scoped, part, row) for row in rows}
    point = {row: tau for row, sample in own.items() if (tau := kendall(sample)) is not None}
    others = [row for row in point if found[row].n != len(part.kept)]
    samples = resampled([own[row] for row in others], counts[part.kept])
    taus = taus | {row: each[0] for row, each in zip(others, samples, strict=True)}
    if not point:
        return found
    strength = np.array([np.nan_to_num(taus[row]) * math.copysign(1.0, point[row]) for row in point])
    strongest = np.isclose(strength, strength.max(axis=0), rtol=0, atol=1e-12)
    shares = (strongest / strongest.sum(axis=0)).mean(axis=1)
    # Of equal taus, the one that more samples have as the strongest; the first, where that is equal too.
    first = max(range(len(point)), key=lambda k: (round(abs(list(point.values())[k]), DECIMALS), shares[k], -k))
    for k, row in enumerate(point):
        one = replace(found[row], best_share=float(shares[k]), tau_common=point[row], n_common=len(part.kept))
        if k != first:
            low, high = _interval(strength[first] - strength[k])
            behind = max(map(abs, point.values())) - abs(point[row])
            one = replace(one, behind=behind, behind_low=low, behind_high=high)
        found[row] = one
    return _left_out(found, rows, point)


def _rivals(values: Floats, rows: list[int]) -> tuple[list[int], np.ndarray]:
    """The rows to compare and the masks to compare them over: as many rows as leave `COMMON` of the masks of any."""
    present = np.isfinite(values)
    order = sorted(rows, key=lambda row: -int(present[row].sum()))
    common = np.ones(values.shape[1], dtype=bool)
    least = COMMON * (present[order[0]].sum() if order else 0)
    taken = []
    for row in order:
        if (common & present[row]).sum() >= least:
            common &= present[row]
            taken.append(row)
    return sorted(taken), common


def _left_out(found: list[Correlation], rivals: list[int], compared: Collection[int]) -> list[Correlation]:
    """With the reason why a metric is not compared, where there is no other."""
    return [
        replace(one, reason=CONSTANT if row in rivals else ABSENT)
        if compared and one.reason is None and row not in compared
        else one
        for row, one in enumerate(found)
    ]
