"""The correlations of one scope: every metric's alone, then corrected for their number and compared with the strongest."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from pai_cli.files.messages import all_names
from pai_cli.ranking.bootstrap import Counts, Resampling, draw, interval, resampled
from pai_cli.ranking.controls import given_controls
from pai_cli.ranking.correlation import Correlation, Scope, Statistic
from pai_cli.ranking.scoped import DECIMALS, PERFECT, Part, Scoped, alike, part_of, sample_of
from pai_cli.ranking.statistics import (
    PERMUTED_BELOW,
    Floats,
    Ints,
    Sample,
    centred,
    centred_ranks,
    dependence,
    holm,
    kendall,
    kendall_p,
    pearson,
    permutation_p,
    product_p,
    shuffles,
    spearman,
    t_p,
)

SELDOM = "most bootstrap samples have no two masks that differ: no interval"
ABSENT = "not compared with the strongest: has no value for too many of the masks"
CONSTANT = "not compared with the strongest: has one value for all the masks that are compared"
COMMON = 0.8  # share of the masks that metrics are compared over at least
DRAWS, SHUFFLES = 0, 1  # purposes of random numbers


def correlate_within(scoped: Scoped, how: Resampling) -> list[Correlation]:
    """A correlation a metric, in the order of `names`."""
    counts = draw(scoped.strata, scoped.clusters, how.count, how.generator(DRAWS))
    found: dict[int, Correlation] = {}
    taus: dict[int, Floats] = {}
    for rows in alike(scoped.values, range(len(scoped.names))):
        part = part_of(scoped, np.isfinite(scoped.values[rows[0]]))
        few = 2 < part.masks < PERMUTED_BELOW
        orders = shuffles(part.groups, len(part.y), how.generator(SHUFFLES)) if few else None
        own = {row: sample_of(scoped, part, row) for row in rows}
        for row, sample in own.items():
            found[row] = _one(scoped, part, row, sample, orders)
        resampling = [row for row in rows if found[row].tau.value is not None and part.too_few is None]
        samples = resampled([own[row] for row in resampling], counts[part.kept])
        for row, each in zip(resampling, samples, strict=True):
            found[row] = _with_intervals(found[row], each)
            taus[row] = each[0]
    whole = given_controls([found[row] for row in range(len(scoped.names))], scoped, counts)
    return _compared(_corrected(whole), taus, scoped, counts)


def _one(scoped: Scoped, part: Part, row: int, sample: Sample, orders: Ints | None) -> Correlation:
    """One metric's correlation, without intervals and corrections."""
    values = (kendall(sample), spearman(sample), pearson(sample))
    tau, rho, r = (Statistic(value) for value in values)
    blank = Correlation(scoped.names[row], scoped.scope, sample.size, tau, rho, r)
    if values[0] is None:
        return replace(blank, reason=_undefined(sample, scoped.scope))
    tests = _tests(sample, values, part, orders)
    statistics = [replace(Statistic(value), p=p, test=test) for value, (p, test) in zip(values, tests, strict=True)]
    return _with(replace(blank, reason=part.too_few), statistics)


def _with_intervals(one: Correlation, samples: Floats) -> Correlation:
    """`samples`: shape (3, samples)."""
    statistics = [_with_interval(*each) for each in zip((one.tau, one.rho, one.r), samples, strict=True)]
    if statistics[0].low is not None:
        return _with(one, statistics)
    return _with(replace(one, reason=PERFECT if one.tau.perfect else SELDOM), statistics)


def _with(correlation: Correlation, statistics: Sequence[Statistic]) -> Correlation:
    tau, rho, r = statistics
    return replace(correlation, tau=tau, rho=rho, r=r)


def _undefined(sample: Sample, scope: Scope) -> str:
    if sample.size < 2:
        return f"{sample.size} mask{'s' * (sample.size != 1)} with a value: a correlation takes two"
    if all(len(at) < 2 for at in sample.strata):
        return f"no two masks of equal {all_names(scope.grouped_by)}"
    constant = all((sample.y_rank[at] == sample.y_rank[at[0]]).all() for at in sample.strata)
    return "the accuracies compared are all equal" if constant else "the metric's values compared are all equal"


def _tests(
    sample: Sample, values: Sequence[float | None], part: Part, orders: Ints | None
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
    if statistic.value is None or statistic.perfect:
        return statistic
    low, high = interval(samples)
    return replace(statistic, low=low, high=high)


# --- the metrics of a scope together


def _corrected(found: Sequence[Correlation]) -> list[Correlation]:
    columns = [[(one.tau, one.rho, one.r, one.partial)[k] for one in found] for k in range(4)]
    corrected = [
        [replace(one, p_holm=p) for one, p in zip(column, holm([statistic.p for statistic in column]), strict=True)]
        for column in columns
    ]
    return [
        replace(one, tau=tau, rho=rho, r=r, partial=partial)
        for one, (tau, rho, r, partial) in zip(found, zip(*corrected, strict=True), strict=True)
    ]


def _compared(found: list[Correlation], taus: dict[int, Floats], scoped: Scoped, counts: Counts) -> list[Correlation]:
    """With each metric's share of samples in which it is the strongest, and how far it is behind the strongest.

    Strength is tau in the direction that it has over the masks that are compared: those with a value of every metric that
    takes part. `taus`: the samples over a metric's own masks.
    """
    rows, common = _rivals(scoped.values, list(taus))
    part = part_of(scoped, common) if rows else None
    if part is None or part.too_few:
        return found
    own = {row: sample_of(scoped, part, row) for row in rows}
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
            low, high = interval(strength[first] - strength[k])
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
